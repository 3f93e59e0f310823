"""Tokens that register a key: for how long, for whom, and what is kept of them."""

from datetime import UTC, datetime
from typing import Any

import pytest
from jupyterhub import orm
from sqlalchemy import select
from sqlalchemy.orm import Session

from mlhub_hub.auth import keys, ssh_setups
from mlhub_hub.auth.ssh_keys import KeyRefused, PublicKey
from mlhub_hub.auth.tables import Account, Approval, SshSetup, create_tables
from mlhub_hub.auth.user_changes import follow_users

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def db() -> Session:
    session: Session = orm.new_session_factory("sqlite:///:memory:")()
    bind: Any = session.get_bind()
    create_tables(bind)
    follow_users()
    session.add_all([orm.User(name="alice"), orm.User(name="bob")])
    session.commit()
    return session


def key(number: int) -> PublicKey:
    return PublicKey("Ed25519", f"ssh-ed25519 {number}", f"SHA256:{number}", "laptop")


def made(db: Session, user: str = "alice") -> str:
    return ssh_setups.make_token(db, user, owner="alice", server="gpu1", now=NOW)


def test_a_token_is_long_kept_as_a_hash_and_good_for_ten_minutes(db: Session) -> None:
    token = made(db)
    assert len(token) >= 43, "256 bits"
    [row] = db.scalars(select(SshSetup))
    assert token not in repr(vars(row))
    found = ssh_setups.find(db, token, now=NOW + ssh_setups.LIFETIME * 0.99)
    assert found is not None
    assert (found.user, found.owner, found.server) == ("alice", "alice", "gpu1")
    assert ssh_setups.find(db, token, now=NOW + ssh_setups.LIFETIME) is None
    assert ssh_setups.find(db, token[:-1], now=NOW) is None
    assert ssh_setups.find(db, "", now=NOW) is None


def test_it_registers_one_key_and_a_refused_one_does_not_count(db: Session) -> None:
    keys.add_key(db, "bob", key(1), label="", now=NOW)
    token = made(db)
    setup = ssh_setups.find(db, token, now=NOW)
    assert setup is not None
    with pytest.raises(KeyRefused):
        ssh_setups.redeem(db, setup, key(1), now=NOW)
    setup = ssh_setups.find(db, token, now=NOW)
    assert setup is not None
    assert ssh_setups.redeem(db, setup, key(2), now=NOW)
    assert ssh_setups.find(db, token, now=NOW) is None
    assert [(row.fingerprint, row.label) for row in keys.keys_of(db, "alice")] == [("SHA256:2", "laptop")]
    again = ssh_setups.find(db, made(db), now=NOW)
    assert again is not None
    assert not ssh_setups.redeem(db, again, key(2), now=NOW), "it was there"
    assert not db.scalars(select(SshSetup)).all()


def test_it_goes_with_its_user_and_with_his_approval(db: Session) -> None:
    token, other = made(db), made(db, "bob")
    db.delete(orm.User.find(db, "alice"))
    db.commit()
    db.add(orm.User(name="alice"))
    db.commit()
    assert ssh_setups.find(db, token, now=NOW) is None, "he who has the name now did not ask for it"
    assert ssh_setups.find(db, other, now=NOW) is not None
    db.add(Account(name="bob", password_hash="", approval=Approval.WITHDRAWN, created_at=NOW))
    db.commit()
    assert ssh_setups.find(db, other, now=NOW) is None


def test_the_next_one_takes_its_place_and_nothing_is_left_of_those_that_are_over(db: Session) -> None:
    first, other = made(db), made(db, "bob")
    second = made(db)
    assert ssh_setups.find(db, first, now=NOW) is None
    assert ssh_setups.find(db, second, now=NOW) is not None
    assert ssh_setups.find(db, other, now=NOW) is not None
    later = NOW + ssh_setups.LIFETIME * 2
    ssh_setups.make_token(db, "bob", owner="bob", server="", now=later)
    assert len(db.scalars(select(SshSetup)).all()) == 1
