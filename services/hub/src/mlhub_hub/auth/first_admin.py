"""How the first admin comes in: by a password from the settings, or by a link that works once."""

import hashlib
import os
import secrets
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import structlog
from argon2 import PasswordHasher
from sqlalchemy.orm import Session

from mlhub_hub.auth import accounts, names, passwords
from mlhub_hub.auth.tables import FirstAdmin

log = structlog.get_logger(__name__)

LINK_FILE = "first-admin-link.txt"


def prepare(
    db: Session, name: str, *, password: str | None, link: Callable[[str], str], data_dir: Path, now: datetime
) -> None:
    """Make the first admin's account, or print the link to make it; does nothing once there is one.

    `link` makes the address to print of a token. Blocks for a moment: call it while the hub starts.
    """
    name = names.normalise(name)
    if accounts.find(db, name) is not None:
        return
    if password is not None:
        if (weakness := passwords.why_refused(password, name)) is not None:
            log.warning("first_admin.weak_password", user=name, weakness=weakness)
        accounts.make_admin(db, name, PasswordHasher().hash(password), now=now)
        forget_link(data_dir)
        log.info("first_admin.made", user=name)
        return
    file = data_dir / LINK_FILE
    if db.get(FirstAdmin, name) is not None and file.is_file():
        log.warning("first_admin.waiting", user=name, link_in=str(file))
        return
    # The file is gone, or was never written: only its hash is known here, so make another.
    token = secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).hexdigest()
    db.merge(FirstAdmin(name=name, token_sha256=digest, created_at=now))
    _write_private(file, link(token) + "\n")
    db.commit()
    log.warning("first_admin.sign_up", user=name, link_in=str(file))
    print(f"\n  To make the first admin's account, open (it works once):\n\n    {link(token)}\n", file=sys.stderr)


def forget_link(data_dir: Path) -> None:
    """Remove the file with the link."""
    (data_dir / LINK_FILE).unlink(missing_ok=True)


def _write_private(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
