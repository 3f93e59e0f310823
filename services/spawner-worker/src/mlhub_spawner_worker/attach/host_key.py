"""The endpoint's own key."""

import os
from pathlib import Path

import asyncssh


def load_or_make(path: Path) -> asyncssh.SSHKey:
    """The private key in this file; an Ed25519 key is made where there is none, readable by nobody else."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = asyncssh.generate_private_key("ssh-ed25519")
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key.export_private_key())
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
    return asyncssh.read_private_key(path)


def public_line(key: asyncssh.SSHKey) -> str:
    """Type and base64 of the public half, without comment."""
    return " ".join(key.export_public_key().decode().split()[:2])
