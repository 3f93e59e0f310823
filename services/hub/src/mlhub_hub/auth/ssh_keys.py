"""What is a public key that may log somebody in, and what is none."""

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from mlhub_shared.errors import Permanent

MIN_RSA_BITS = 3072
MAX_BYTES = 8000
KEYS_PER_USER = 50

_NAMES = {
    "ssh-ed25519": "Ed25519",
    "ecdsa-sha2-nistp256": "ECDSA P-256",
    "ecdsa-sha2-nistp384": "ECDSA P-384",
    "ecdsa-sha2-nistp521": "ECDSA P-521",
    "sk-ssh-ed25519@openssh.com": "Ed25519 security key",
    "sk-ecdsa-sha2-nistp256@openssh.com": "ECDSA security key",
    "ssh-rsa": "RSA",
}


class KeyRefused(Permanent):
    """Why a text is no key to log in with, as a sentence."""


@dataclass(frozen=True)
class PublicKey:
    """A public key, taken apart."""

    kind: str
    """For people: `Ed25519`, `RSA 4096`."""
    line: str
    """Type and base64, without the comment."""
    fingerprint: str
    """`SHA256:...` as OpenSSH shows it."""
    comment: str


def parse(text: str) -> PublicKey:
    """The one key of a pasted text; KeyRefused otherwise."""
    if "PRIVATE KEY" in text:
        raise KeyRefused(
            "This is a private key, and should never leave your computer. Paste the file whose name ends in .pub."
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise KeyRefused("Paste the one line of your public key.")
    if len(lines) > 1:
        raise KeyRefused("These are several lines. Paste one public key at a time.")
    if len(lines[0]) > MAX_BYTES:
        raise KeyRefused("This is too long for a public key.")
    words = lines[0].split(None, 2)
    kind = words[0]
    if kind == "ssh-dss":
        raise KeyRefused("DSA keys are too weak: they have 1024 bits. Make a new key: ssh-keygen -t ed25519")
    if "-cert-v01@" in kind:
        raise KeyRefused("This is a certificate. Paste the public key itself.")
    if kind not in _NAMES or len(words) < 2:
        raise KeyRefused(
            "This is not a public key that OpenSSH could use. It begins like ssh-ed25519 AAAA… or ssh-rsa AAAA…"
        )
    return _checked(kind, words[1], words[2] if len(words) > 2 else "")


def kind_of(line: str) -> str:
    """The kind of a stored key, for people."""
    return _NAMES.get(line.split(" ", 1)[0], line.split(" ", 1)[0])


def _checked(kind: str, encoded: str, comment: str) -> PublicKey:
    broken = KeyRefused("This key is damaged: copy it again, in one piece.")
    try:
        blob = base64.b64decode(encoded, validate=True)
        key = load_ssh_public_key(f"{kind} {encoded}".encode())
    except (ValueError, binascii.Error, UnsupportedAlgorithm):
        raise broken from None
    if blob[4 : 4 + len(kind)] != kind.encode() or int.from_bytes(blob[:4], "big") != len(kind):
        raise broken
    name = _NAMES[kind]
    if isinstance(key, RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            raise KeyRefused(
                f"This RSA key has {key.key_size} bits; it needs at least {MIN_RSA_BITS}."
                " Make a new key: ssh-keygen -t ed25519"
            )
        name = f"{name} {key.key_size}"
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return PublicKey(kind=name, line=f"{kind} {encoded}", fingerprint=f"SHA256:{digest}", comment=comment)
