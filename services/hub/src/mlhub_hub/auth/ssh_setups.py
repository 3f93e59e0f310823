"""Tokens that register one SSH key each; each function is one transaction, and none awaits."""

import hashlib
import secrets
from datetime import datetime, timedelta

from jupyterhub import orm
from sqlalchemy import delete, or_
from sqlalchemy.orm import Session

from mlhub_hub.auth import keys
from mlhub_hub.auth.ssh_keys import KeyRefused, PublicKey
from mlhub_hub.auth.tables import Account, SshSetup

LIFETIME = timedelta(minutes=10)
_BYTES = 32


def make_token(db: Session, user: str, *, owner: str, server: str, now: datetime) -> str:
    """A token for this user's next key and a computer that comes into this workspace; ends the user's earlier one."""
    token = secrets.token_urlsafe(_BYTES)
    db.execute(delete(SshSetup).where(or_(SshSetup.user == user, SshSetup.expires_at < now)))
    row = SshSetup(token_sha256=_digest(token), user=user, owner=owner, server=server, expires_at=now + LIFETIME)
    db.add(row)
    db.commit()
    return token


def find(db: Session, token: str, *, now: datetime) -> SshSetup | None:
    """What a token is for; None if there is none, or no more, or its user may not come in any more."""
    row = db.get(SshSetup, _digest(token), populate_existing=True)
    if row is None or row.expires_at <= now or orm.User.find(db, row.user) is None:
        return None
    account = db.get(Account, row.user, populate_existing=True)
    return None if account is not None and account.is_withdrawn else row


def redeem(db: Session, setup: SshSetup, key: PublicKey, *, now: datetime) -> bool:
    """Use the token up for this key; False if the user had the key already. KeyRefused leaves the token as it is."""
    user = setup.user
    db.delete(setup)
    if any(row.fingerprint == key.fingerprint for row in keys.keys_of(db, user)):
        db.commit()
        return False
    try:
        keys.add_key(db, user, key, label="", now=now)
    except KeyRefused:
        db.rollback()
        raise
    return True


def _digest(token: str) -> str:
    # Nobody can try tokens of 256 bits: no slow hash is needed.
    return hashlib.sha256(token.encode()).hexdigest()
