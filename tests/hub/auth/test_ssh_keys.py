"""Which keys may log somebody in, checked against what OpenSSH says of them."""

import base64
import struct
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mlhub_hub.auth.ssh_keys import KeyRefused, kind_of, parse


def keygen(folder: Path, *arguments: str) -> str:
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-C", "me@laptop", "-f", key, *arguments], check=True)
    return (folder / "key.pub").read_text()


def packed(*parts: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def line(kind: str, *parts: bytes) -> str:
    return f"{kind} {base64.b64encode(packed(kind.encode(), *parts)).decode()} token"


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["-t", "ed25519"], "Ed25519"),
        (["-t", "ecdsa", "-b", "256"], "ECDSA P-256"),
        (["-t", "ecdsa", "-b", "521"], "ECDSA P-521"),
        (["-t", "rsa", "-b", "3072"], "RSA 3072"),
    ],
)
def test_good_keys_are_taken_with_the_fingerprint_that_openssh_shows(
    tmp_path: Path, arguments: list[str], kind: str
) -> None:
    text = keygen(tmp_path, *arguments)
    key = parse(f"\n  {text}\n")
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", tmp_path / "key.pub"], check=True, capture_output=True, text=True
    ).stdout.split()[1]
    assert (key.fingerprint, key.kind, key.comment) == (shown, kind, "me@laptop")
    assert key.line == " ".join(text.split()[:2])


def test_keys_of_security_tokens_are_taken() -> None:
    point = ec.generate_private_key(ec.SECP256R1()).public_key()
    on_curve = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    raw = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert parse(line("sk-ssh-ed25519@openssh.com", raw, b"ssh:")).kind == "Ed25519 security key"
    ecdsa = line("sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", on_curve, b"ssh:")
    assert kind_of(parse(ecdsa).line) == "ECDSA security key"


def test_weak_keys_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(KeyRefused, match=r"2048 bits; it needs at least 3072"):
        parse(keygen(tmp_path, "-t", "rsa", "-b", "2048"))
    with pytest.raises(KeyRefused, match="DSA"):
        parse(line("ssh-dss", b"\1" * 128))


def test_a_private_key_is_refused_and_not_repeated(tmp_path: Path) -> None:
    keygen(tmp_path, "-t", "ed25519")
    private = (tmp_path / "key").read_text()
    with pytest.raises(KeyRefused, match="private key") as refusal:
        parse(private)
    assert private.splitlines()[1] not in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "hello",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-ed25519 !!!!",
        'command="sh" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5',
        "ssh-ed25519-cert-v01@openssh.com AAAA",
        "ssh-rsa " + "A" * 20_000,
        "ssh-ed25519 A\nssh-ed25519 B",
        # One kind without, another within.
        line("ssh-ed25519", b"\1" * 32).replace("ssh-ed25519 ", "ssh-rsa ", 1),
    ],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(KeyRefused):
        parse(text)
