"""The gateway's own keys."""

import secrets
from pathlib import Path

import asyncssh

from mlhub_shared.files import make_once


def load_or_make(path: Path) -> asyncssh.SSHKey:
    """The private key in this file, an Ed25519 key made where there is none; its public line goes into `<path>.pub`."""
    make_once(path, lambda: asyncssh.generate_private_key("ssh-ed25519").export_private_key())
    key = asyncssh.read_private_key(path)
    line = (public_line(key) + "\n").encode()
    public = path.with_name(f"{path.name}.pub")
    if not public.exists() or public.read_bytes().split()[:2] != line.split():
        fresh = public.with_name(f"{public.name}.{secrets.token_hex(4)}")
        fresh.write_bytes(line)
        fresh.chmod(0o644)
        fresh.rename(public)
    return key


def public_line(key: asyncssh.SSHKey) -> str:
    """Type and base64 of the public half, without comment."""
    return " ".join(key.export_public_key().decode().split()[:2])
