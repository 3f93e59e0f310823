"""A hub, a bus and a scripted worker for the tests of the hub."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.workspace import Phase
from tests.conftest import bus_settings
from tests.support.hub_process import Api, HubProcess
from tests.support.nats_server import NatsServer
from tests.support.scripted_worker import ScriptedWorker
from tests.support.waiting import until_async


@dataclass
class Stage:
    """Everything a test of the hub acts on."""

    nats: NatsServer
    bus: Bus
    worker: ScriptedWorker
    hub: HubProcess
    api: Api

    async def user(self, name: str, **fields: Any) -> None:
        """Make a user."""
        await self.api("POST", f"/users/{name}", fields or None, expect=201)

    async def token_of(self, name: str) -> Api:
        """The API as that user sees it."""
        answer = await self.api("POST", f"/users/{name}/tokens", {}, expect=201)
        return Api(self.hub, answer["token"])

    async def until_ready(self, user: str, server: str = "", *, within: float = 20) -> None:
        async def is_ready() -> bool:
            model = await self.api.server(user, server)
            return model is not None and model["ready"]

        await until_async(is_ready, within=within)

    async def until_gone(self, user: str, server: str = "", *, within: float = 20) -> None:
        async def is_gone() -> bool:
            model = await self.api.server(user, server)
            return model is None or model["stopped"]

        await until_async(is_gone, within=within)

    async def until_phase(self, name: str, phase: Phase, *, within: float = 10) -> None:
        async def is_there() -> bool:
            record = await self.worker.record(name)
            return record is not None and record.phase is phase

        await until_async(is_there, within=within)


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """The hub's settings beside the usual ones; a module may have its own."""
    return {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> AsyncIterator[Stage]:
    """One hub for all tests of a module; each test takes users of its own."""
    async for made in make_stage(tmp_path_factory.mktemp("hub"), **environment):
        yield made


async def make_stage(folder: Path, **environment: str) -> AsyncIterator[Stage]:
    nats = await NatsServer(folder / "nats").start()
    bus = await Bus.open(bus_settings(nats))
    worker = ScriptedWorker(bus, capacity=2)
    hub = HubProcess(folder, nats, worker.probe_url, **environment)
    try:
        async with worker.running():
            await hub.start()
            yield Stage(nats, bus, worker, hub, Api(hub))
    finally:
        await hub.stop()
        await bus.close()
        await nats.stop()
