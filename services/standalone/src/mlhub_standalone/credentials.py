"""Secrets made at the first start and kept: each service finds those it needs, and no others, as files of its own."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from mlhub_standalone.data_dir import DataDir, write_private

NATS_USER = "mlhub"
LAUNCHER = "launcher"
"""Reads a password, too, but is no service."""

READERS = {
    "MLHUB_NATS_PASSWORD": ("nats", LAUNCHER, "hub", "spawner-worker", "proxy", "cleanup", "ssh-gateway"),
    "MLHUB_INTERNAL_TOKEN": ("hub", "spawner-worker", "proxy", "cleanup", "ssh-gateway"),
    "MLHUB_CLEANUP_HUB_API_TOKEN": ("hub", "cleanup"),
    "MLHUB_SSH_GATEWAY_HUB_API_TOKEN": ("hub", "ssh-gateway"),
    "MLHUB_PROXY_HUB_API_TOKEN": ("hub", "proxy"),
}
"""Which service reads which secret. The file is named like the variable that would set it."""

GIVEN = {
    "MLHUB_ADMIN_PASSWORD": ("hub",),
    "MLHUB_API_TOKEN": ("hub",),
    "MLHUB_HUB_DATABASE_URL": ("hub",),
    "cert.crt": ("proxy",),
    "cert.key": ("proxy",),
    "cert.pem": ("proxy",),
}
"""Secrets that are not made here but may be given, as files in the folder `MLHUB_SECRETS_DIR`, with their readers."""


@dataclass(frozen=True)
class Credentials:
    """What the launcher itself has to hand on."""

    nats_password: str = field(repr=False)
    ssh_host_key: Path
    """Private key the SSH port shows."""
    gateway_key: Path
    """Private key that opens the workers' attach endpoints."""
    ssh_host_public: str
    gateway_public: str


def make(data: DataDir) -> Credentials:
    """Read every secret, making those that are missing."""
    values = {variable: _secret(data, variable, readers) for variable, readers in READERS.items()}
    folder = data.secrets("ssh-gateway")
    host_key, gateway_key = folder / "ssh_host_ed25519_key", folder / "attach_ed25519_key"
    return Credentials(
        nats_password=values["MLHUB_NATS_PASSWORD"],
        ssh_host_key=host_key,
        gateway_key=gateway_key,
        ssh_host_public=_key(host_key),
        gateway_public=_key(gateway_key),
    )


def made_for(data: DataDir, variable: str, reader: str) -> str:
    """One more secret, of one service alone, as 64 hexadecimal digits."""
    file = data.secrets(reader) / variable
    value = file.read_text() if file.is_file() else ""
    value = value or secrets.token_hex(32)
    _keep(file, value)
    return value


def public_halves(data: DataDir, made: Credentials) -> dict[Path, str]:
    """The files that tell the other side of each pair of keys, and those that the gateway can't write by itself."""
    return {
        data.secrets("hub") / "MLHUB_HUB_SSH_HOST_KEY": made.ssh_host_public,
        data.secrets("spawner-worker") / "MLHUB_SPAWNER_WORKER_GATEWAY_PUBLIC_KEY": made.gateway_public,
        _public(made.ssh_host_key): f"{made.ssh_host_public}\n",
        _public(made.gateway_key): f"{made.gateway_public}\n",
    }


def take_given(data: DataDir, person: Mapping[str, str]) -> None:
    """Hand on what the person keeps as files in a folder; what is not there any more is given to nobody."""
    named = person.get("MLHUB_SECRETS_DIR")
    folder = Path(named) if named else None
    files = {file.name.upper(): file for file in folder.iterdir()} if folder and folder.is_dir() else {}
    for name, readers in GIVEN.items():
        for reader in readers:
            copy = data.secrets(reader) / name
            if (file := files.get(name.upper())) is None:
                copy.unlink(missing_ok=True)
            else:
                _keep(copy, file.read_text().strip() + "\n" * name.startswith("cert."))


def nats_password(data: DataDir) -> str:
    """The password of the bus as the last start made it."""
    return (data.secrets(LAUNCHER) / "MLHUB_NATS_PASSWORD").read_text()


def _secret(data: DataDir, variable: str, readers: tuple[str, ...]) -> str:
    files = [data.secrets(reader) / variable for reader in readers]
    found = (file.read_text() for file in files if file.is_file())
    value = next(filter(None, found), None) or secrets.token_urlsafe(32)
    for file in files:
        _keep(file, value)
    return value


def _public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def _keep(file: Path, text: str) -> None:
    """Write what is new: somebody may be waiting for a change."""
    if not file.is_file() or file.read_text() != text:
        write_private(file, text)


def _key(path: Path) -> str:
    if path.is_file():
        private = load_ssh_private_key(path.read_bytes(), password=None)
    else:
        private = Ed25519PrivateKey.generate()
        text = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
        write_private(path, text)
    return private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
