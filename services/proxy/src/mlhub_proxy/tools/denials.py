"""Who was not let in, on its way to the audit stream; nobody waits for it."""

import asyncio
from collections import deque

import structlog

from mlhub_shared.bus import Bus
from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.errors import MLHubError, Temporary

log = structlog.get_logger(__name__)

_SAME = 60.0
"""Seconds in which the same person at the same workspace is told of once: a page asks for many things."""
_MOST = 10_000
"""People remembered, and events that wait while the bus is away; those beyond are lost."""


class Denials:
    """Keeps them until the bus has them."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._told: dict[tuple[str, str], float] = {}
        self._waiting: deque[Event] = deque()
        self._some = asyncio.Event()

    def note(self, record: WorkspaceRecord, requester: str, *, client: str, port: int | None) -> None:
        """Somebody known was refused."""
        now, key = asyncio.get_running_loop().time(), (record.name, requester)
        if now - self._told.get(key, -_SAME) < _SAME:
            return
        if len(self._told) >= _MOST:
            self._told.clear()
        if len(self._waiting) >= _MOST:
            return
        self._told[key] = now
        event = Event(
            kind=EventKind.ACCESS_DENIED,
            workspace=record.workspace,
            generation=record.generation,
            requester=requester,
            message="No access to the tools of this workspace",
            detail={"client": client, "through": "tools", "port": port},
        )
        self._waiting.append(event)
        self._some.set()

    async def run(self) -> None:
        """Send what was noted, in its order, for ever."""
        backoff = Backoff()
        while True:
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                if await self._send(self._waiting[0]):
                    self._waiting.popleft()
                    backoff.reset()
                else:
                    await backoff.sleep()

    async def _send(self, event: Event) -> bool:
        try:
            await self._bus.emit(event)
        except Temporary:
            return False
        except MLHubError as error:
            log.error("event.refused", kind=event.kind, error=str(error))
        return True
