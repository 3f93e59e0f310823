"""A clean-up in this process on a real nats-server, and a worker and a hub that answer by script."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from mlhub_cleanup.service import build
from mlhub_cleanup.settings import CleanupSettings
from mlhub_shared.bus import Bus, Table
from mlhub_shared.contracts.commands import Command
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.runtime.health import Health
from mlhub_shared.runtime.http import create_app
from mlhub_shared.runtime.service import Runtime
from tests.cleanup.scripted_hub import TOKEN, ScriptedHub
from tests.conftest import bus_settings
from tests.support.makers import record
from tests.support.nats_server import NatsServer


@dataclass
class Cleanup:
    """One life of the service."""

    runtime: Runtime

    @property
    def problems(self) -> dict[str, str]:
        return self.runtime.health.problems()


Start = Callable[..., Any]


@asynccontextmanager
async def cleanup_service(server: NatsServer, **settings: Any) -> AsyncIterator[Cleanup]:
    """The service as `__main__` builds it, without its listener."""
    bus = await Bus.open(bus_settings(server, "cleanup"))
    health = Health()
    runtime = Runtime("cleanup", bus, create_app("cleanup", health, SecretStr("internal")), health)
    values: dict[str, Any] = {
        "hub_name": "test",
        "interval_seconds": -1,
        "hub_api_token": TOKEN,
        "public_url": "http://testserver",
    }
    try:
        async with build(runtime, settings=CleanupSettings(**(values | settings))):
            yield Cleanup(runtime)
    finally:
        await runtime.end()
        await bus.close()


@pytest.fixture
async def start(nats_server: NatsServer) -> AsyncIterator[Start]:
    """Start the service with these settings; ended with the test at the latest."""
    async with AsyncExitStack() as stack:

        async def started(**settings: Any) -> tuple[Cleanup, AsyncExitStack]:
            life = await stack.enter_async_context(AsyncExitStack())
            return await life.enter_async_context(cleanup_service(nats_server, **settings)), life

        yield started


@pytest.fixture
async def hub() -> AsyncIterator[ScriptedHub]:
    """A hub that has no users yet."""
    hub = ScriptedHub()
    await hub.start()
    yield hub
    await hub.stop()


class Seen:
    """What is on the bus."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.tables: list[Table[Any]] = []
        """Of whoever is tested."""

    async def settled(self) -> None:
        """Wait until those tables show all that is on the bus."""
        for table in self.tables:
            state = (await self.bus.connection.js.stream_info(f"KV_{table.bucket.name}")).state
            while table.revision < state.last_seq:  # noqa: ASYNC110  (the test's own time-out bounds it)
                await asyncio.sleep(0.01)

    async def put(self, value: WorkspaceRecord) -> WorkspaceRecord:
        await self.bus.workspaces.put(value.name, value)
        return value

    async def remove(self, value: WorkspaceRecord) -> None:
        await self.bus.workspaces.delete(value.name)

    async def command(self, of: WorkspaceRecord) -> Command | None:
        last = await self.bus.last_command(of.pool, of.name, of.node)
        return last[0] if last else None

    async def events(self, kind: EventKind, of: WorkspaceRecord | None = None) -> list[Event]:
        """All events of a kind, oldest first."""
        subject = self.bus.subjects.event(kind, of.name if of else None)
        last = await self.bus.connection.last(self.bus.subjects.events, subject)
        found: list[Event] = []
        for sequence in range(1, (last.sequence if last else 0) + 1):
            raw = await self.bus.connection.js.get_msg(self.bus.subjects.events, sequence)
            if raw.subject == subject:
                found.append(Event.model_validate_json(raw.data or b""))
        return found

    async def forget_message_ids(self) -> None:
        """What the bus does by itself two minutes after a message."""
        config = (await self.bus.connection.js.stream_info(self.bus.subjects.events)).config
        await self.bus.connection.js.update_stream(config, duplicate_window=0.1)
        await asyncio.sleep(0.4)

    async def pending(self) -> set[tuple[str, str]]:
        return await self.bus.timers.pending()


@pytest.fixture
async def seen(bus: Bus) -> Seen:
    """Look at the bus, and write records as a worker would."""
    return Seen(bus)


def soon(seconds: float) -> datetime:
    """A time from now, in whole milliseconds as the bus counts them."""
    when = datetime.now(UTC) + timedelta(seconds=seconds)
    return when.replace(microsecond=when.microsecond // 1000 * 1000)


def living(user: str = "alice", server: str = "", *, until: datetime | None, **fields: Any) -> WorkspaceRecord:
    """A ready workspace of node n1 that ends then."""
    values: dict[str, Any] = {"node": "n1", "ready_at": soon(0), "expires_at": until, "generation": 7}
    return record(user, server, **(values | fields))


__all__ = ["Cleanup", "Seen", "Start", "cleanup_service", "living", "soon"]
