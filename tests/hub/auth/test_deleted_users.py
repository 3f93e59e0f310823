"""A deletion is told if and only if it has happened and somebody asked for it, whenever the hub dies."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jupyterhub import orm
from sqlalchemy import select
from sqlalchemy.orm import Session

from mlhub_hub.auth.deleted_users import DeletedUsers
from mlhub_hub.auth.tables import DeletedUser, create_tables
from mlhub_hub.auth.user_changes import follow_users
from mlhub_hub.requester import note_requester
from mlhub_shared.bus import Bus
from mlhub_shared.contracts.commands import DeleteWorkspace, SpawnWorkspace, StopWorkspace
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.tasks import end_tasks
from tests.hub.conftest import Stage
from tests.support.waiting import until, until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVALID = """
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.Authenticator.username_pattern = "[a-z]+$"
c.Authenticator.delete_invalid_users = True
"""


@pytest.fixture
def db() -> Session:
    session: Session = orm.new_session_factory("sqlite:///:memory:")()
    bind: Any = session.get_bind()
    create_tables(bind)
    follow_users()
    session.add_all([orm.User(name="alice"), orm.User(name="bob")])
    session.commit()
    return session


async def told(bus: Bus) -> list[Event]:
    return [event async for event in bus.past_events(EventKind.USER_DELETED)]


def noted(db: Session) -> list[str]:
    return [row.user for row in db.scalars(select(DeletedUser))]


def somebody_asks() -> None:
    handler: Any = SimpleNamespace(current_user=SimpleNamespace(kind="user", name="admin"))
    note_requester(handler)


async def test_a_deletion_is_noted_with_it_or_not_at_all(db: Session) -> None:
    db.delete(orm.User.find(db, "bob"))
    db.commit()
    assert noted(db) == [], "nobody asked for it"
    somebody_asks()
    db.delete(orm.User.find(db, "alice"))
    db.flush()
    db.rollback()
    assert noted(db) == []
    db.delete(orm.User.find(db, "alice"))
    db.commit()
    assert noted(db) == ["alice"]


async def test_a_renamed_user_is_not_deleted(db: Session) -> None:
    somebody_asks()
    orm.User.find(db, "alice").name = "carol"
    db.commit()
    assert noted(db) == []


async def test_what_was_told_before_a_crash_is_told_again_as_the_same(db: Session, stage: Stage) -> None:
    somebody_asks()
    db.delete(orm.User.find(db, "alice"))
    db.commit()
    [row] = db.scalars(select(DeletedUser))
    again = {"id": row.id, "user": row.user, "requester": row.requester, "deleted_at": row.deleted_at}
    for _ in range(2):
        telling = asyncio.ensure_future(DeletedUsers(db, stage.bus).run())
        await until(lambda: not noted(db))
        await end_tasks(telling)
        db.add(DeletedUser(**again))
        db.commit()
    [event] = await told(stage.bus)
    assert (event.user, event.requester, event.at) == ("alice", "user:admin", again["deleted_at"])


async def test_a_hub_tells_what_the_one_before_it_did_not_come_to_tell(stage: Stage) -> None:
    await stage.user("told")
    await stage.user("dies")
    await stage.api("DELETE", "/users/told", expect=204)

    async def are_told(*names: str) -> bool:
        return {event.user for event in await told(stage.bus)} >= set(names)

    await until_async(lambda: are_told("told"))
    assert (await told(stage.bus))[-1].requester == "service:automation"
    with closing(sqlite3.connect(stage.hub.folder / "data" / "jupyterhub.sqlite")) as database:
        await until(lambda: database.execute("select count(*) from mlhub_deleted_users").fetchone() == (0,))
    await stage.hub.kill()
    at = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    with closing(sqlite3.connect(stage.hub.folder / "data" / "jupyterhub.sqlite")) as database, database:
        row = ("0" * 32, "dies", "user:admin", f"{at:%Y-%m-%d %H:%M:%S.%f}")
        database.execute("insert into mlhub_deleted_users (id, user, requester, deleted_at) values (?, ?, ?, ?)", row)
    await stage.hub.start()
    await until_async(lambda: are_told("told", "dies"))
    last = (await told(stage.bus))[-1]
    assert (last.id, last.at, last.requester) == ("0" * 32, at, "user:admin")


async def test_users_whose_names_do_not_fit_any_more_are_not_told_as_deleted(stage: Stage, tmp_path: Path) -> None:
    await stage.user("user1")
    config = tmp_path / "config.py"
    config.write_text(INVALID)
    stage.hub.set(MLHUB_HUB_USER_CONFIG=str(config))
    await stage.hub.stop()
    await stage.hub.start()
    assert await stage.api.status("GET", "/users/user1") == 404
    await stage.user("last")
    await stage.api("DELETE", "/users/last", expect=204)

    async def is_told() -> bool:
        return (await told(stage.bus))[-1].user == "last"

    await until_async(is_told)
    assert "user1" not in {event.user for event in await told(stage.bus)}


async def test_nobody_gets_what_an_earlier_user_of_his_name_had(stage: Stage) -> None:
    name, worker = "ws-again-test", stage.worker
    await stage.user("again")
    await stage.api("POST", "/users/again/server", {"env": {"OF": "the first"}}, expect=202)
    await stage.until_ready("again")
    await stage.api("DELETE", "/users/again/server")
    await stage.until_gone("again")
    worker.pause()
    await stage.api("DELETE", "/users/again", expect=204)
    await stage.user("again")
    await stage.api("POST", "/users/again/server", expect=202)
    await asyncio.sleep(1)
    worker.resume()
    await stage.until_ready("again")
    kinds = [type(command) for command in worker.commands if command.workspace.name == name]
    assert kinds == [SpawnWorkspace, StopWorkspace, DeleteWorkspace, SpawnWorkspace]
    assert [spawn.spec.env for spawn in worker.spawns_of(name)] == [{"OF": "the first"}, {}]


async def test_who_is_only_new_to_the_database_gets_back_what_he_had(stage: Stage) -> None:
    await stage.user("back")
    await stage.api("POST", "/users/back/server", expect=202)
    await stage.until_ready("back")
    await stage.api("DELETE", "/users/back/server")
    await stage.until_gone("back")
    await stage.hub.kill()
    with closing(sqlite3.connect(stage.hub.folder / "data" / "jupyterhub.sqlite")) as database, database:
        database.execute("update users set created = ? where name = 'back'", (f"{datetime.now(UTC):%F %T.%f}",))
    await stage.hub.start()
    await stage.api("POST", "/users/back/server", expect=202)
    await stage.until_ready("back")
