"""Who may keep the engine busy now: more than a few at a time make nobody faster, and all of them late."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from datetime import timedelta

from mlhub_shared.errors import Temporary

_PATIENCE = timedelta(seconds=45)
"""In line. Who has waited that long asks again: his place is not worth a time-out meant for the work itself."""


class Gate:
    """Lets few through at a time; those who have begun come before those who begin, so that the first are early."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._begun: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()

    @contextlib.asynccontextmanager
    async def turn(self, *, has_begun: bool) -> AsyncIterator[None]:
        """Wait for one's turn and hold it; Temporary if that takes too long."""
        try:
            async with asyncio.timeout(_PATIENCE.total_seconds()):
                await self._enter(self._begun if has_begun else self._others)
        except TimeoutError:
            raise Temporary("many workspaces are started at the same time", delay=timedelta(seconds=1)) from None
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, line: deque[asyncio.Future[None]]) -> None:
        if self._room > 0:
            self._room -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._leave()
            raise

    def _leave(self) -> None:
        for line in (self._begun, self._others):
            while line:
                place = line.popleft()
                if not place.done():
                    place.set_result(None)
                    return
        self._room += 1
