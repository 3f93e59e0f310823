"""Where keys were last used, and databases that an earlier hub has made."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from jupyterhub import orm
from sqlalchemy import text

from mlhub_hub.auth.keys import add_key, keys_of, note_use
from mlhub_hub.auth.ssh_keys import PublicKey, parse
from mlhub_hub.auth.tables import create_tables
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.subjects import NO_WORKSPACE
from tests.hub.conftest import Stage, make_stage
from tests.hub.web import WebSession
from tests.support.hub_process import ADMIN_PASSWORD
from tests.support.makers import workspace
from tests.support.waiting import until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

PASSWORD = 'c.DummyAuthenticator.password = "right"\n'

OLD_TABLE = """
CREATE TABLE mlhub_ssh_keys (
  fingerprint VARCHAR(64) NOT NULL PRIMARY KEY, user VARCHAR(255) NOT NULL, label VARCHAR(100) NOT NULL,
  public_key VARCHAR(8192) NOT NULL, added_at DATETIME NOT NULL
)
"""


def a_key(folder: Path, name: str = "key") -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name], check=True)
    return (folder / f"{name}.pub").read_text()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def admin(stage: Stage) -> AsyncIterator[WebSession]:
    session = WebSession(stage.hub.url)
    await session.login("admin", ADMIN_PASSWORD)
    yield session
    await session.close()


def entered(fingerprint: str | None, client: str, *, at: datetime) -> Event:
    detail: dict[str, Any] = {"client": client, "method": "key" if fingerprint else "token", "fingerprint": fingerprint}
    kind = EventKind.SESSION_OPENED
    return Event(at=at, kind=kind, workspace=workspace("alice"), requester="user:alice", detail=detail)


async def test_a_database_of_an_earlier_hub_keeps_its_keys_and_learns_of_their_use(tmp_path: Path) -> None:
    db = orm.new_session_factory(f"sqlite:///{tmp_path}/hub.sqlite")()
    bind: Any = db.get_bind()
    db.execute(text(OLD_TABLE))
    db.execute(
        text("INSERT INTO mlhub_ssh_keys VALUES ('SHA256:a', 'alice', 'old', 'ssh-ed25519 A', '2025-01-01 00:00:00')")
    )
    db.commit()
    for _ in range(2):
        create_tables(bind)
    [row] = keys_of(db, "alice")
    assert (row.label, row.last_used_at, row.last_used_from) == ("old", None, None)
    note_use(db, "SHA256:a", when=NOW, address="192.0.2.5")
    [row] = keys_of(db, "alice")
    assert (row.last_used_at, row.last_used_from) == (NOW, "192.0.2.5")
    db.close()


async def test_a_late_or_repeated_word_changes_nothing(tmp_path: Path) -> None:
    db = orm.new_session_factory(f"sqlite:///{tmp_path}/hub.sqlite")()
    bind: Any = db.get_bind()
    create_tables(bind)
    add_key(db, "alice", PublicKey("Ed25519", "ssh-ed25519 A", "SHA256:a", ""), label="x", now=NOW)
    note_use(db, "SHA256:a", when=NOW, address="192.0.2.5")
    for when, address in [
        (NOW - timedelta(hours=1), "192.0.2.6"),
        (NOW, "192.0.2.7"),
        (NOW + timedelta(seconds=5), "192.0.2.5"),
    ]:
        note_use(db, "SHA256:a", when=when, address=address)
        [row] = keys_of(db, "alice")
        assert (row.last_used_at, row.last_used_from) == (NOW, "192.0.2.5")
    note_use(db, "SHA256:a", when=NOW + timedelta(seconds=5), address="192.0.2.8")
    [row] = keys_of(db, "alice")
    assert row.last_used_from == "192.0.2.8"
    note_use(db, "SHA256:none", when=NOW, address="192.0.2.8")
    db.close()


async def test_the_page_says_when_and_from_where_a_key_was_last_used(
    stage: Stage, admin: WebSession, tmp_path: Path
) -> None:
    used, unused = (parse(a_key(tmp_path, name)) for name in ("used", "unused"))
    for key in (used, unused):
        await admin.post("ssh-keys", action="add", public_key=key.line, label=key.comment)
    assert (await admin.get("ssh-keys")).text.count("not used yet") == 2
    await stage.bus.emit(entered(None, "198.51.100.1", at=datetime.now(UTC)))
    await stage.hub.kill()
    # While no hub is there.
    await stage.bus.emit(entered(used.fingerprint, "198.51.100.77", at=datetime.now(UTC)))
    await stage.hub.start()

    async def is_told() -> bool:
        return "198.51.100.77" in (await admin.get("ssh-keys")).text

    await until_async(is_told)
    page = (await admin.get("ssh-keys")).text
    assert page.count("not used yet") == 1
    assert "198.51.100.1<" not in page


@pytest_asyncio.fixture(loop_scope="module")
async def elsewhere(tmp_path: Path) -> AsyncIterator[Stage]:
    """A hub with an authenticator of JupyterHub's."""
    config = tmp_path / "config.py"
    config.write_text('c.JupyterHub.authenticator_class = "dummy"\nc.Authenticator.allow_all = True\n' + PASSWORD)
    async for made in make_stage(tmp_path / "stage", MLHUB_HUB_USER_CONFIG=str(config)):
        yield made


async def until_key_is_of(stage: Stage, *users: str) -> None:
    table = stage.bus.start_table(stage.bus.ssh_keys)

    async def is_theirs() -> bool:
        await table.synced()
        return [key.user for key in table.values()] == list(users)

    await until_async(is_theirs, within=20)


async def test_wrong_passwords_of_another_authenticator_are_told_too(elsewhere: Stage) -> None:
    web = WebSession(elsewhere.hub.url, address="198.51.100.3")
    assert (await web.login("zoe", "wrong")).status_code == 403
    async with asyncio.timeout(30), aclosing(elsewhere.bus.replay(NO_WORKSPACE, since=NOW)) as replay:
        event = await anext(event async for event in replay if event.kind is EventKind.LOGIN_REFUSED)
    assert (event.user, event.detail["client"], event.detail["how"]) == (None, "198.51.100.3", "password")
    await web.close()


async def test_keys_go_and_move_with_a_user_of_another_authenticator_at_once(elsewhere: Stage, tmp_path: Path) -> None:
    web = WebSession(elsewhere.hub.url)
    assert (await web.login("zoe", "right")).status_code == 302
    await web.post("ssh-keys", action="add", public_key=a_key(tmp_path))
    await until_key_is_of(elsewhere, "zoe")
    await elsewhere.api("PATCH", "/users/zoe", {"name": "yan"}, expect=200)
    await until_key_is_of(elsewhere, "yan")
    await elsewhere.api("DELETE", "/users/yan", expect=204)
    await until_key_is_of(elsewhere)
    await web.close()
