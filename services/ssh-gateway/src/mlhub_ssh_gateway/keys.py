"""The gateway's own keys."""

import contextlib
import os
import secrets
from pathlib import Path

import asyncssh


def load_or_make(path: Path) -> asyncssh.SSHKey:
    """The private key in this file, an Ed25519 key made where there is none; its public line goes into `<path>.pub`."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Gateways that start together must come to have the same one.
        with contextlib.suppress(FileExistsError):
            _write(path, asyncssh.generate_private_key("ssh-ed25519").export_private_key(), mode=0o600, only_new=True)
    key = asyncssh.read_private_key(path)
    line = (public_line(key) + "\n").encode()
    public = path.with_name(f"{path.name}.pub")
    if not public.exists() or public.read_bytes().split()[:2] != line.split():
        _write(public, line, mode=0o644)
    return key


def public_line(key: asyncssh.SSHKey) -> str:
    """Type and base64 of the public half, without comment."""
    return " ".join(key.export_public_key().decode().split()[:2])


def _write(path: Path, data: bytes, *, mode: int, only_new: bool = False) -> None:
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if only_new:
        try:
            path.hardlink_to(fresh)
        finally:
            fresh.unlink()
    else:
        fresh.rename(path)
