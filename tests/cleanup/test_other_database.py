"""The sweep beside a real hub that loses its database."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from mlhub_cleanup.commands import Commands
from mlhub_cleanup.hub_api import HubApi
from mlhub_cleanup.reports import Outcome
from mlhub_cleanup.sweep import Sweep
from mlhub_shared.bus import Bus
from mlhub_shared.contracts.commands import DeleteWorkspace
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.runtime.clock import utc_now
from tests.cleanup.conftest import Seen, living
from tests.support.hub_process import Api, HubProcess
from tests.support.nats_server import NatsServer
from tests.support.waiting import until_async

TOKEN = "the-token-of-the-clean-up-which-is-long-enough"


@pytest.fixture
async def a_hub(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[HubProcess]:
    hub = HubProcess(tmp_path / "hub", nats_server, "http://127.0.0.1:1", MLHUB_CLEANUP_HUB_API_TOKEN=TOKEN)
    try:
        yield await hub.start()
    finally:
        await hub.stop()


async def test_nothing_goes_with_the_database_and_a_user_s_with_him(a_hub: HubProcess, bus: Bus, seen: Seen) -> None:
    api, url = Api(a_hub), f"{a_hub.url}/hub/api"
    values = {user: await seen.put(living(user, "gpu1", until=None)) for user in ("alice", "bob", "carol")}
    for user in values:
        await api("POST", f"/users/{user}", expect=201)
    records, leases = bus.start_table(bus.workspaces), bus.start_table(bus.workers)
    await records.synced()
    async with HubApi(url, SecretStr(TOKEN)) as hub:
        sweep = Sweep(bus, records, leases, Commands(bus, utc_now), hub, utc_now)

        async def swept() -> dict[str, Outcome]:
            users, _ = await sweep.once()
            assert users.problem is None
            return {item.user: item.outcome for item in users.workspaces}

        assert await swept() == {}
        await a_hub.stop()
        shutil.rmtree(a_hub.folder / "data")
        await a_hub.start()
        for _ in range(3):
            assert await swept() == dict.fromkeys(values, Outcome.HELD)
        # And once people are back, who is deleted now is deleted with what he had.
        for user in ("alice", "bob"):
            await api("POST", f"/users/{user}", expect=201)
        await api("DELETE", "/users/alice", expect=204)

        async def is_vouched_for() -> bool:
            return await swept() == {"alice": Outcome.ASKED, "carol": Outcome.HELD}

        await until_async(is_vouched_for)
    assert [await is_deleted(seen, value) for value in values.values()] == [True, False, False]


async def is_deleted(seen: Seen, value: WorkspaceRecord) -> bool:
    return isinstance(await seen.command(value), DeleteWorkspace)
