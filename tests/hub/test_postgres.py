"""The hub on a real PostgreSQL: an empty database is enough, and it is found again."""

from collections.abc import AsyncIterator
from pathlib import Path

import alembic.command
import pytest
import pytest_asyncio
from alembic.config import Config
from jupyterhub.dbutil import _temp_alembic_ini

from mlhub_hub.settings import HubSettings
from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.workspace import Phase
from tests.hub.conftest import Stage, make_stage
from tests.hub.web import WebSession
from tests.support.hub_process import ADMIN_PASSWORD
from tests.support.postgres import Postgres, postgres, postgres_folder
from tests.support.waiting import until_async

PASSWORD = "a rather long one"
PROGRAMS = postgres_folder()
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(PROGRAMS is None, reason="needs PostgreSQL's server (Debian: postgresql)"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database() -> AsyncIterator[Postgres]:
    assert PROGRAMS is not None
    async with postgres(PROGRAMS) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory, database: Postgres) -> AsyncIterator[Stage]:
    async for made in make_stage(tmp_path_factory.mktemp("hub"), MLHUB_HUB_DATABASE_URL=database.url):
        yield made


async def test_people_sign_up_and_their_workspaces_outlive_hub_and_database(stage: Stage, database: Postgres) -> None:
    admin, alice = WebSession(stage.hub.url), WebSession(stage.hub.url)
    try:
        assert (await admin.login("admin", ADMIN_PASSWORD)).status_code == 302
        await alice.sign_up("alice", PASSWORD)
        assert (await alice.login("alice", PASSWORD)).status_code == 403
        await admin.post("approvals", name="alice", decision="approve")
        assert (await alice.login("alice", PASSWORD)).status_code == 302
        await stage.api("POST", "/users/alice/servers/one", {"mem_limit": "1G", "env": {"A": "b"}})
        await stage.until_ready("alice", "one")
        assert await database.rows("SELECT name FROM mlhub_accounts ORDER BY name") == [("admin",), ("alice",)]

        await stage.hub.stop()
        await stage.hub.start()
        await stage.until_ready("alice", "one")
        model = await stage.api.server("alice", "one")
        assert model is not None
        assert model["user_options"]["env"] == {"A": "b"}
        assert len(stage.worker.spawns_of("ws-alice-test-one")) == 1, "it was found, not started again"
        assert await alice.is_logged_in()

        await database.kill()
        await database.start()
        await until_async(alice.is_logged_in)
        await stage.api("DELETE", "/users/alice/servers/one", expect=204)
        await stage.until_gone("alice", "one")
        await stage.until_phase("ws-alice-test-one", Phase.STOPPED)
    finally:
        await admin.close()
        await alice.close()


async def test_a_deletion_is_told_though_the_bus_is_away_and_the_hub_dies(stage: Stage, database: Postgres) -> None:
    await stage.user("bob")
    await stage.nats.kill()
    await stage.api("DELETE", "/users/bob")
    assert await database.rows('SELECT "user" FROM mlhub_deleted_users') == [("bob",)]
    await stage.hub.kill()
    await stage.nats.start()
    await stage.hub.start()

    async def is_told() -> bool:
        told = [event.detail async for event in stage.bus.past_events(EventKind.USER_DELETED)]
        return bool(told) and await database.rows('SELECT "user" FROM mlhub_deleted_users') == []

    await until_async(is_told)


async def test_tables_of_an_earlier_version_are_changed_when_its_owner_says_so(
    stage: Stage, database: Postgres, tmp_path: Path
) -> None:
    await stage.user("carol")
    await stage.hub.stop()
    with _temp_alembic_ini(HubSettings(hub_name="test", database_url=database.url).database()) as file:
        alembic.command.downgrade(Config(file), "-1")
    earlier = await database.rows("SELECT version_num FROM alembic_version")
    with pytest.raises(RuntimeError, match="MLHUB_HUB_DATABASE_UPGRADE=true"):
        await stage.hub.start()
    assert await database.rows("SELECT version_num FROM alembic_version") == earlier
    assert "p@ss/w%rd" not in stage.hub.log.read_text()
    stage.hub.set(MLHUB_HUB_DATABASE_UPGRADE="true")
    await stage.hub.start()
    assert await database.rows("SELECT version_num FROM alembic_version") != earlier
    assert (await stage.api("GET", "/users/carol", expect=200))["name"] == "carol"
