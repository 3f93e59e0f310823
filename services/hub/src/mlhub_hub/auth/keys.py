"""The SSH keys of users; each function is one transaction, and none awaits."""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from mlhub_hub.auth.ssh_keys import KEYS_PER_USER, KeyRefused, PublicKey
from mlhub_hub.auth.tables import SshKeyRow

_LABEL_LENGTH, _ADDRESS_LENGTH = 100, 64

_SAME_USE = timedelta(seconds=30)
"""A script may come in many times a second."""


def keys_of(db: Session, user: str) -> list[SshKeyRow]:
    """A user's keys, the oldest first."""
    return list(db.scalars(select(SshKeyRow).where(SshKeyRow.user == user).order_by(SshKeyRow.added_at)))


def labels_of(db: Session, fingerprints: Collection[str]) -> dict[str, tuple[str, str]]:
    """Whose these keys are, and what they are called there, by fingerprint."""
    rows = db.scalars(select(SshKeyRow).where(SshKeyRow.fingerprint.in_(fingerprints)))
    return {row.fingerprint: (row.user, row.label) for row in rows}


def add_key(db: Session, user: str, key: PublicKey, *, label: str, now: datetime) -> SshKeyRow:
    """Let this key log the user in; KeyRefused if it can't be his."""
    present = db.get(SshKeyRow, key.fingerprint, populate_existing=True)
    if present is not None and present.user == user:
        raise KeyRefused("You have added this key already.")
    if present is not None:
        # Nothing about whose it is.
        raise KeyRefused("This key can't be used here. Make one of your own: ssh-keygen -t ed25519")
    if len(keys_of(db, user)) >= KEYS_PER_USER:
        raise KeyRefused(f"You have {KEYS_PER_USER} keys. Remove one first.")
    row = SshKeyRow(
        fingerprint=key.fingerprint,
        user=user,
        label=_printable(label or key.comment) or key.kind,
        public_key=key.line,
        added_at=now,
    )
    db.add(row)
    db.commit()
    return row


def remove_key(db: Session, user: str, fingerprint: str) -> bool:
    """Take a key away from its user; False if it is not his."""
    row = db.get(SshKeyRow, fingerprint)
    if row is None or row.user != user:
        return False
    db.delete(row)
    db.commit()
    return True


def note_use(db: Session, fingerprint: str, *, when: datetime, address: str) -> None:
    """Remember when and from where a key last let somebody in; the same again within a while is not worth a write."""
    row = db.get(SshKeyRow, fingerprint, populate_existing=True)
    if row is None or (row.last_used_at is not None and row.last_used_at >= when):
        return
    is_news = row.last_used_at is None or when - row.last_used_at >= _SAME_USE
    if not is_news and row.last_used_from == address:
        return
    row.last_used_at, row.last_used_from = when, address[:_ADDRESS_LENGTH]
    try:
        db.commit()
    except SQLAlchemyError:
        db.rollback()
        raise


def _printable(label: str) -> str:
    return "".join(letter for letter in label if letter.isprintable()).strip()[:_LABEL_LENGTH]
