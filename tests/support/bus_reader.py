"""What the bus of a stack holds, for tests that are not asynchronous."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TypeVar

from mlhub_shared.bus import Bus, BusSettings
from mlhub_shared.contracts.events import Event
from mlhub_shared.contracts.workspace import WorkspaceRecord

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds for one question, the connection included."""

_SILENCE = 0.3
"""Seconds without a further event after which there are no more."""


class BusReader:
    """Connects anew for each question: the bus may have been killed since the last."""

    def __init__(self, settings: Callable[[], BusSettings]) -> None:
        self._settings = settings

    def ask(self, question: Callable[[Bus], Awaitable[T]]) -> T:
        """Do something with the bus; TimeoutError if it takes too long."""
        return asyncio.run(self._ask(question))

    def record(self, name: str) -> WorkspaceRecord | None:
        """A workspace's record, None if there is none."""
        entry = self.ask(lambda bus: bus.workspaces.get(name))
        return entry.value if entry else None

    def records(self) -> dict[str, WorkspaceRecord]:
        """All records by name."""
        return self.ask(_records)

    def events(self, name: str) -> list[Event]:
        """Everything that has happened to a workspace."""
        return self.ask(lambda bus: _events(bus, name))

    async def _ask(self, question: Callable[[Bus], Awaitable[T]]) -> T:
        async with asyncio.timeout(PATIENCE):
            bus = await Bus.open(self._settings())
            try:
                return await question(bus)
            finally:
                await bus.close()


async def _records(bus: Bus) -> dict[str, WorkspaceRecord]:
    table = bus.start_table(bus.workspaces)
    await table.synced()
    return {record.name: record for record in table.values()}


async def _events(bus: Bus, name: str) -> list[Event]:
    found: list[Event] = []
    async with aclosing(bus.replay(name, since=datetime.fromtimestamp(0, UTC))) as events:
        while True:
            try:
                found.append(await asyncio.wait_for(anext(events), _SILENCE))
            except TimeoutError:
                return found
