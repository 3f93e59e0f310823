"""Keys as OpenSSH writes them."""

from pathlib import Path

import asyncssh


def write_key(path: Path, key: asyncssh.SSHKey) -> None:
    """Write a private key, readable by nobody else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(key.export_private_key())


def public_line(key: asyncssh.SSHKey) -> str:
    """Type and base64 of the public half, without comment."""
    return " ".join(key.export_public_key().decode().split()[:2])
