"""Who may keep the engine busy now: more than a few at a time make nobody faster, and all of them late."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

from mlhub_shared.errors import Temporary

_PATIENCE = timedelta(seconds=45)
"""In line. Who has waited that long asks again: his place is not worth a time-out meant for the work itself."""


class Gate:
    """Lets few through at a time, in the order in which they come."""

    def __init__(self, room: int) -> None:
        self._room = asyncio.Semaphore(room)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one's turn and hold it; Temporary if that takes too long."""
        try:
            async with asyncio.timeout(_PATIENCE.total_seconds()):
                await self._room.acquire()
        except TimeoutError:
            raise Temporary("many workspaces are started at the same time", delay=timedelta(seconds=1)) from None
        try:
            yield
        finally:
            self._room.release()
