"""The endpoint's own key."""

from pathlib import Path

import asyncssh

from mlhub_shared.files import make_once


def load_or_make(path: Path) -> asyncssh.SSHKey:
    """The private key in this file; an Ed25519 key is made where there is none, readable by nobody else."""
    make_once(path, lambda: asyncssh.generate_private_key("ssh-ed25519").export_private_key())
    return asyncssh.read_private_key(path)


def public_line(key: asyncssh.SSHKey) -> str:
    """Type and base64 of the public half, without comment."""
    return " ".join(key.export_public_key().decode().split()[:2])
