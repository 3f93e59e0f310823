"""Turns at something slow: a few at once, some more who wait for theirs, and nobody beyond."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mlhub_shared.errors import Temporary


class Lane:
    """Those of one kind, so that a crowd holds up nobody but its own."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._room = at_once + waiting

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """In here it is one's turn; Temporary at once where too many wait."""
        if self._room <= 0:
            raise Temporary("too many ask at once")
        self._room -= 1
        try:
            async with self._turns:
                yield
        finally:
            self._room += 1
