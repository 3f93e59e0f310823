"""What takes turns at starting containers."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Seat:
    """One server of one user."""

    user: str
    server: str = ""


class Contender(Protocol):
    """Starts servers in containers."""

    async def prepare(self, seats: Sequence[Seat]) -> None:
        """What may be there before anybody asks."""

    async def up(self, seats: Sequence[Seat]) -> list[float]:
        """Start all at once: the seconds after which each was ready."""

    async def down(self, seats: Sequence[Seat]) -> None:
        """Remove all, and wait until the engine has none of them left."""


@dataclass(frozen=True)
class Turn:
    """What one turn of a contender gave, in seconds."""

    ready: Sequence[float]
    gone: float
    """From the wish to remove them all to the last one's end."""

    @property
    def last(self) -> float:
        return max(self.ready)

    @property
    def median(self) -> float:
        return statistics.median(self.ready)


async def take_turn(contender: Contender, *, seats: Callable[[], Sequence[Seat]]) -> Turn:
    """Up and down again, with seats of this turn's own."""
    own = seats()
    await contender.prepare(own)
    ready = await contender.up(own)
    started = time.monotonic()
    await contender.down(own)
    return Turn(ready, time.monotonic() - started)
