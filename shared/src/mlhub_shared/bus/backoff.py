"""Waiting longer after each failure."""

import asyncio
import random
from datetime import timedelta


class Backoff:
    """Delays that double from `first` to `most` seconds, spread by half so that crowds come apart."""

    def __init__(self, first: float = 0.05, most: float = 2.0) -> None:
        self._first, self._most = first, most
        self._next = first

    def reset(self) -> None:
        """Start again from the shortest delay."""
        self._next = self._first

    async def sleep(self, *, at_least: timedelta = timedelta(0)) -> None:
        """Wait for the next delay, or for as long as was asked for."""
        delay, self._next = self._next, min(self._next * 2, self._most)
        delay = max(delay, at_least.total_seconds() / 0.75)
        await asyncio.sleep(delay * random.uniform(0.75, 1.25))  # noqa: S311  (spread, not secrecy)
