"""The bucket of open sessions, as far as they are this gateway's; nobody waits for it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import structlog

from mlhub_shared.bus import Bus
from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.errors import MLHubError
from mlhub_ssh_gateway.sessions import Sessions

log = structlog.get_logger(__name__)

_TTL = timedelta(seconds=90)
_FIGURES = 30.0
"""Seconds between two words on a session that moves bytes."""
_STILL_HERE = 45.0
"""Seconds between two on one that does not."""
_LOOK = 5.0
_GATHER = 0.1
"""Seconds in which changes are gathered."""
_AT_ONCE = 16
_LAST_CALL = timedelta(seconds=2)

Work = Callable[[], Awaitable[None]]

Told = tuple[float, int]
"""When, and how many bytes."""


class Roster:
    """Writes what is open, and takes away what is not."""

    def __init__(self, bus: Bus, sessions: Sessions, replica: str) -> None:
        self._bus, self._sessions, self._replica = bus, sessions, replica
        self._told: dict[str, Told] = {}
        self._is_right = asyncio.Event()

    async def run(self) -> None:
        """Keep the bucket right, for ever."""
        backoff = Backoff()
        with self._bus.connection.on_reconnect() as reconnected:
            while True:
                self._sessions.changed.clear()
                if reconnected.is_set():
                    # The store may have been lost.
                    reconnected.clear()
                    self._told = {id: (float("-inf"), 0) for id in self._told}
                if not await self._write(self._due()):
                    await backoff.sleep()
                    continue
                backoff.reset()
                if not self._sessions.changed.is_set():
                    self._is_right.set()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._sessions.changed.wait(), _LOOK)
                    await asyncio.sleep(_GATHER)
                self._is_right.clear()

    async def flush(self) -> None:
        """Let `run` write what is left, within a bound."""
        self._is_right.clear()
        self._sessions.changed.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_right.wait(), _LAST_CALL.total_seconds())

    def _due(self) -> list[Work]:
        now = asyncio.get_running_loop().time()
        due: list[Work] = []
        for session in self._sessions.all():
            at, told = self._told.get(session.id, (float("-inf"), 0))
            patience = _STILL_HERE if session.bytes_in + session.bytes_out == told else _FIGURES
            if now - at >= patience:
                due.append(partial(self._put, session.id))
        gone = [id for id in self._told if self._sessions.get(id) is None]
        return due + [partial(self._delete, id) for id in gone]

    async def _write(self, due: list[Work]) -> bool:
        for start in range(0, len(due), _AT_ONCE):
            # All of them are waited for: one that came late would undo what is written next.
            wrote = await asyncio.gather(*(_attempt(work) for work in due[start : start + _AT_ONCE]))
            if not all(wrote):
                return False
        return True

    async def _put(self, id: str) -> None:
        session = self._sessions.get(id)
        if session is None:
            return
        value, now = session.to_open_session(self._replica), asyncio.get_running_loop().time()
        # Before it is written: what may have been has to be taken away.
        self._told.setdefault(id, (float("-inf"), 0))
        await self._bus.sessions.put(id, value, ttl=_TTL)
        self._told[id] = now, value.bytes_in + value.bytes_out

    async def _delete(self, id: str) -> None:
        await self._bus.sessions.delete(id)
        self._told.pop(id, None)


async def _attempt(work: Work) -> bool:
    try:
        await work()
    except MLHubError as error:
        log.debug("roster.not_written", error=str(error))
        return False
    return True
