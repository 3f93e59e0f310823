"""Events on their way to the audit stream, from those who can't wait for the bus."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import structlog

from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.bus.bus import Bus
from mlhub_shared.contracts.events import Event
from mlhub_shared.errors import MLHubError, Temporary

log = structlog.get_logger(__name__)

_MOST = 10_000
"""Events that wait while the bus is away; those beyond are lost."""
_LAST_CALL = 2.0
"""Seconds to send what is left at the end."""


class Outbox:
    """Keeps events until the bus has them; `on_loss` is called for each one that it has no room for."""

    def __init__(self, bus: Bus, on_loss: Callable[[], object] = lambda: None) -> None:
        self._bus, self._on_loss = bus, on_loss
        self._waiting: deque[Event] = deque()
        self._some, self._none = asyncio.Event(), asyncio.Event()
        self._none.set()

    def write(self, event: Event) -> None:
        """Take an event; it is sent when the bus is there."""
        if len(self._waiting) >= _MOST:
            self._on_loss()
            return
        self._waiting.append(event)
        self._none.clear()
        self._some.set()

    async def run(self) -> None:
        """Send what was taken, in its order, for ever."""
        backoff = Backoff()
        while True:
            while self._waiting:
                if await self._send(self._waiting[0]):
                    self._waiting.popleft()
                    backoff.reset()
                else:
                    await backoff.sleep()
            self._none.set()
            await self._some.wait()
            self._some.clear()

    async def flush(self) -> None:
        """Let `run` send what is left, within a bound."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._none.wait(), _LAST_CALL)

    async def _send(self, event: Event) -> bool:
        try:
            await self._bus.emit(event)
        except Temporary:
            return False
        except MLHubError as error:
            log.error("event.refused", kind=event.kind, error=str(error))
        return True
