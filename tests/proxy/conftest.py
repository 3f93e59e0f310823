"""A running proxy with a hub behind it, and ways to make workspaces."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.workspace import Endpoint, Phase, WorkspaceRecord
from tests.proxy.backend import Backend
from tests.proxy.stack import REPLICA, Agent
from tests.support.makers import record
from tests.support.nats_server import NatsServer
from tests.support.waiting import until_async

MakeBackend = Callable[[str], Awaitable[Backend]]


@pytest.fixture
async def backend() -> AsyncIterator[MakeBackend]:
    """Make small servers."""
    made: list[Backend] = []

    async def make(name: str) -> Backend:
        made.append(await Backend(name).start())
        return made[-1]

    yield make
    for server in made:
        await server.stop()


@pytest.fixture
async def hub(backend: MakeBackend) -> Backend:
    """What stands for the hub."""
    return await backend("hub")


@pytest.fixture
async def stopped_agent(tmp_path: Path, nats_server: NatsServer, hub: Backend) -> AsyncIterator[Agent]:
    """An agent that the test starts."""
    agent = Agent(tmp_path, nats_server, hub.port)
    yield agent
    await agent.stop()
    agent.clean_up()


@pytest.fixture
async def agent(stopped_agent: Agent) -> Agent:
    """A ready one."""
    await stopped_agent.start()
    await stopped_agent.ready()
    return stopped_agent


@pytest.fixture
async def other_agent(tmp_path: Path, nats_server: NatsServer, hub: Backend) -> AsyncIterator[Agent]:
    """A second replica, with TLS, that the test starts."""
    (tmp_path / "other").mkdir()
    agent = Agent(tmp_path / "other", nats_server, hub.port, REPLICA="proxy-2", TLS="on")
    yield agent
    await agent.stop()
    agent.clean_up()


async def put(bus: Bus, entry: WorkspaceRecord) -> int:
    """Write a record; returns its revision."""
    return await bus.workspaces.put(entry.name, entry)


def ready(backend: Backend, user: str = "alice", server: str = "", **fields: object) -> WorkspaceRecord:
    """A record of a workspace that this server serves."""
    endpoint = Endpoint(host="127.0.0.1", port=backend.port)
    return record(user, server, phase=Phase.READY, endpoint=endpoint, **fields)


async def applied(bus: Bus, *, workspaces: int = 0, routes: int = 0, replica: str = REPLICA) -> None:
    """Wait until the replica says that it serves these revisions."""

    async def enough() -> bool:
        entry = await bus.proxies.get(replica)
        if entry is None:
            return False
        return entry.value.workspaces_revision >= workspaces and entry.value.routes_revision >= routes

    await until_async(enough)
