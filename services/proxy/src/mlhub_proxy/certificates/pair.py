"""A private key and its certificates: pure."""

import ipaddress
import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from mlhub_shared.errors import Permanent

_KEY = re.compile(r"-----BEGIN (?P<kind>[A-Z ]*PRIVATE KEY)-----.+?-----END (?P=kind)-----", re.DOTALL)
_MOST = 14_000
"""Bytes of all; one command must fit into HAProxy's buffer of 16 KiB."""
_LEAST_RSA = 2048
"""Bits; HAProxy's library takes no shorter key."""


@dataclass(frozen=True)
class Pair:
    """What a server shows, and the key to it."""

    pem: str = field(repr=False)
    """Key, then certificates, the server's own first, without anything between them: as HAProxy reads it."""
    subject: str
    names: frozenset[str]
    begins: datetime
    expires: datetime
    fingerprint: str
    """SHA-256, as browsers show it."""
    pin: str | None
    """`sha256//...` of the public key where it is signed by itself. None: by somebody else, who vouches for it."""

    def covers(self, names: Iterable[str]) -> bool:
        """Whether it is for all these names and addresses."""
        return all(name in self.names or f"*.{name.partition('.')[2]}" in self.names for name in names)

    def check(self, now: datetime) -> None:
        """Permanent if it is not for this time."""
        if now < self.begins:
            raise Permanent(f"the certificate is not valid before {self.begins:%Y-%m-%d %H:%M} UTC")
        if now >= self.expires:
            raise Permanent(f"the certificate expired on {self.expires:%Y-%m-%d %H:%M} UTC")


def read_pair(text: str) -> Pair:
    """From PEM in any order; Permanent if it is no key with its certificate."""
    key_text = _KEY.search(text)
    if key_text is None:
        raise Permanent("there is no private key")
    key = _key(key_text[0])
    try:
        chain = x509.load_pem_x509_certificates(text.encode())
        names, public = _names(chain[0]), _public(chain[0].public_key())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Permanent(f"the certificate can't be read: {error}") from error
    if public != _public(key.public_key()):
        raise Permanent("the private key is not that of the first certificate")
    pem = "\n".join([key_text[0], *(cert.public_bytes(Encoding.PEM).decode().strip() for cert in chain), ""])
    pem = re.sub(r"\s*\n\s*", "\n", pem)
    if len(pem) > _MOST:
        raise Permanent(f"key and certificates are longer than {_MOST} bytes")
    leaf = chain[0]
    pin = f"sha256//{b64encode(sha256(public).digest()).decode()}" if leaf.issuer == leaf.subject else None
    return Pair(
        pem,
        subject=leaf.subject.rfc4514_string(),
        names=names,
        begins=leaf.not_valid_before_utc,
        expires=leaf.not_valid_after_utc,
        fingerprint=leaf.fingerprint(SHA256()).hex(":").upper(),
        pin=pin,
    )


def _key(text: str) -> PrivateKeyTypes:
    try:
        key = load_pem_private_key(text.encode(), None)
    except TypeError as error:
        raise Permanent("the private key is locked with a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Permanent("the private key can't be read") from error
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < _LEAST_RSA:
        raise Permanent(f"an RSA key of {key.key_size} bits is too short")
    return key


def _public(key: object) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return encoded


def _names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    addresses = names.get_values_for_type(x509.IPAddress)
    return frozenset(
        [
            *(name.lower() for name in names.get_values_for_type(x509.DNSName)),
            *(
                str(address)
                for address in addresses
                if isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address)
            ),
        ]
    )
