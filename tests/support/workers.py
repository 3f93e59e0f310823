"""Workers in the test's own process, and what a test asks of them."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.commands import Command, SpawnWorkspace
from mlhub_shared.contracts.events import Event
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord, WorkspaceSecrets
from mlhub_shared.runtime.health import Health
from mlhub_shared.runtime.http import create_app
from mlhub_shared.runtime.service import Runtime
from mlhub_spawner_worker.backends.base import Backend
from mlhub_spawner_worker.factory import running_worker
from mlhub_spawner_worker.probe import Probe
from mlhub_spawner_worker.settings import SpawnerWorkerSettings
from mlhub_spawner_worker.worker import Worker
from tests.conftest import bus_settings
from tests.support.nats_server import NatsServer
from tests.support.waiting import until_async

_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)

FAKE_SERVER = f"{sys.executable} -I -S {Path(__file__).with_name('workspace_server.py')}"
"""A command for the process backend that is up in milliseconds."""


async def always(_: WorkspaceRecord) -> bool:
    """A probe for what answers at once."""
    return True


async def never(_: WorkspaceRecord) -> bool:
    """A probe for what never answers."""
    return False


async def direct(record: WorkspaceRecord) -> bool:
    """A probe that asks the workspace itself, without a proxy."""
    if record.endpoint is None:
        return False
    url = f"http://{record.endpoint.host}:{record.endpoint.port}{record.base_url}api"
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(url, timeout=2)).status_code < 500
    except httpx.HTTPError:
        return False


@contextlib.asynccontextmanager
async def working(
    server: NatsServer,
    data_dir: Path,
    backend: Backend | None = None,
    *,
    probe: Probe = always,
    **settings: Any,
) -> AsyncIterator[Worker]:
    """A worker, reconciled, with a bus of its own; leaving it is a worker's restart: what runs goes on."""
    values: dict[str, Any] = {"node": "n1", "stop_grace": 0.5, "secrets_patience": 0.3, "command": FAKE_SERVER}
    bus = await Bus.open(bus_settings(server, "spawner-worker"))
    health = Health()
    runtime = Runtime("spawner-worker", bus, create_app("spawner-worker", health, None), health)
    try:
        configured = SpawnerWorkerSettings(data_dir=data_dir, **(values | settings))
        async with running_worker(runtime, configured, backend=backend, probe=probe) as worker:
            await asyncio.wait_for(worker.reconciler.done.wait(), 20)
            yield worker
    finally:
        await runtime.end()
        await bus.close()


class People:
    """Asks for workspaces as the hub does, and looks at what becomes of them."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    async def send(self, command: Command, *, node: str | None = None, pool: str = "default") -> None:
        """Send a command, with secrets if it is a spawn."""
        if isinstance(command, SpawnWorkspace):
            secrets = WorkspaceSecrets(generation=command.generation, env={"JUPYTERHUB_API_TOKEN": "canary-token"})
            await self.bus.secrets.put(command.workspace.name, secrets)
        assert await self.bus.send(command, pool=pool, node=node)

    async def record(self, name: str) -> WorkspaceRecord | None:
        """The record now."""
        entry = await self.bus.workspaces.get(name)
        return entry.value if entry else None

    async def reaches(
        self, name: str, wanted: Phase | Callable[[WorkspaceRecord | None], bool], *, within: float = 30
    ) -> WorkspaceRecord:
        """Wait until a record is in a phase, or satisfies a condition."""
        last: WorkspaceRecord | None = None

        async def there() -> bool:
            nonlocal last
            last = await self.record(name)
            return last is not None and last.phase is wanted if isinstance(wanted, Phase) else wanted(last)

        try:
            await until_async(there, within=within)
        except TimeoutError:
            raise AssertionError(f"{name} is not {wanted} but {last!r}") from None
        assert last is not None
        return last

    async def vanishes(self, name: str, *, within: float = 30) -> None:
        """Wait until there is no record."""

        async def gone() -> bool:
            return await self.record(name) is None

        await until_async(gone, within=within)

    async def history(self, name: str) -> list[Event]:
        """Every event of a workspace so far."""
        last = await self.bus.connection.js.stream_info(
            self.bus.subjects.events, subjects_filter=self.bus.subjects.events_of(name)
        )
        count = sum((last.state.subjects or {}).values())
        events: list[Event] = []
        if count:
            stream = self.bus.replay(name, since=_LONG_AGO)
            async for event in stream:
                events.append(event)
                if len(events) == count:
                    break
            await stream.aclose()
        return events
