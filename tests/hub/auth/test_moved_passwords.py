"""Passwords that came from another deployment as hashes of bcrypt."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import bcrypt
import pytest
from jupyterhub import orm
from sqlalchemy.orm import Session
from traitlets.config import Configurable

from mlhub_hub.auth import accounts
from mlhub_hub.auth.authenticator import SignUpAuthenticator
from mlhub_hub.auth.passwords import Passwords, TooBusy, is_outdated
from mlhub_hub.auth.tables import Account, Approval, create_tables
from mlhub_shared.runtime.clock import utc_now

PASSWORD = "the password of long ago"


class Application(Configurable):
    """What an authenticator finds its database by."""

    db: Session


def old_hash(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


@pytest.fixture
def db() -> Session:
    session: Session = orm.new_session_factory("sqlite:///:memory:")()
    create_tables(cast(Any, session.get_bind()))
    return session


@pytest.fixture
def authenticator(db: Session) -> SignUpAuthenticator:
    application = Application()
    application.db = db
    return SignUpAuthenticator(parent=application)


def add(db: Session, name: str, password_hash: str) -> None:
    db.add(Account(name=name, password_hash=password_hash, approval=Approval.APPROVED, created_at=utc_now()))
    db.commit()


def hash_of(db: Session, name: str) -> str:
    account = accounts.find(db, name)
    assert account is not None
    return account.password_hash


async def login(authenticator: SignUpAuthenticator, password: str) -> object:
    handler: Any = SimpleNamespace(request=SimpleNamespace(remote_ip="192.0.2.7"), settings={})
    return await authenticator.authenticate(handler, {"username": "alice", "password": password})


async def test_an_old_password_lets_in_and_its_hash_is_made_anew(
    authenticator: SignUpAuthenticator, db: Session
) -> None:
    add(db, "alice", old_hash(PASSWORD))
    assert await login(authenticator, "another password") is None
    assert is_outdated(hash_of(db, "alice"))
    assert await login(authenticator, PASSWORD) == {"name": "alice"}
    assert hash_of(db, "alice").startswith("$argon2id$")
    assert await login(authenticator, PASSWORD) == {"name": "alice"}
    assert await login(authenticator, "another password") is None


async def test_a_busy_machine_renews_it_next_time(
    authenticator: SignUpAuthenticator, db: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(db, "alice", old_hash(PASSWORD))

    async def too_busy(password: str) -> str:
        raise TooBusy("busy")

    assert await authenticator.passwords.verify("x", None) is False
    monkeypatch.setattr(authenticator.passwords, "hash", too_busy)
    assert await login(authenticator, PASSWORD) == {"name": "alice"}
    assert is_outdated(hash_of(db, "alice"))


async def test_a_password_that_is_changed_meanwhile_stays_changed(
    authenticator: SignUpAuthenticator, db: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(db, "alice", old_hash(PASSWORD))
    make = authenticator.passwords.hash

    async def slow(password: str) -> str:
        made = await make(password)
        accounts.set_password(db, "alice", "changed meanwhile")
        return made

    await authenticator.passwords.verify("x", None)
    monkeypatch.setattr(authenticator.passwords, "hash", slow)
    assert await login(authenticator, PASSWORD) == {"name": "alice"}
    assert hash_of(db, "alice") == "changed meanwhile"


async def test_only_what_bcrypt_ever_looked_at_has_to_match() -> None:
    passwords, long = Passwords(), "ä" * 50
    known = bcrypt.hashpw(long.encode()[:72], bcrypt.gensalt(4)).decode()
    assert await passwords.verify(long, known)
    assert not await passwords.verify("ä" * 35, known)


@pytest.mark.parametrize("known", ["$2b$", "$2b$12$tooshort", "$2b$99$" + "x" * 53, ""])
async def test_what_is_no_hash_matches_nothing(known: str) -> None:
    assert await asyncio.wait_for(Passwords().verify(PASSWORD, known), 20) is False
