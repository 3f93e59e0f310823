"""Which of the workers that share a node acts for a workspace, and which of them leads.

All of them could do everything: what they ask of the backend may be asked twice, and records are written by
compare-and-set. So that it is seldom done twice, each acts for its share of the names, which follows from nothing but
the leases: the names of one that is gone go to the others, and no other name moves.

One that says that it can't reach what it runs workspaces on counts only as long as none of the others can: where
nobody gets through, nothing changes hands.

A worker counts from the moment its lease is out, and only as long as nobody can have seen it end. So one that is cut
off from the bus has stopped acting before the others take over what was its own.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from hashlib import blake2b

import structlog

from mlhub_shared.bus import Table
from mlhub_shared.contracts.services import WorkerLease

log = structlog.get_logger(__name__)

SETTLE = 0.5
"""Seconds for the others to let go of what becomes a newcomer's."""

HOLD = 20.0
"""Seconds that some, but not all, must be out of reach until the others act for them: an outage that is everybody's is
not noticed by all at the same time, nor its end."""

_LOOK = 1.0
"""Seconds between two looks at the own lease though nothing seems to have changed."""


def owner(name: str, replicas: Iterable[str]) -> str:
    """Who of them acts for that name: the same wherever it is asked; one that goes moves only what was its own."""
    return max(replicas, key=lambda replica: (blake2b(f"{replica}/{name}".encode(), digest_size=8).digest(), replica))


class Siblings:
    """The workers of one node, this one among them; without `replica` it is alone, for good."""

    def __init__(self, leases: Table[WorkerLease], node: str, replica: str, is_held: Callable[[], bool]) -> None:
        """`is_held`: whether it is certain that this worker's lease has not ended."""
        self._leases, self._node, self._replica, self._is_held = leases, node, replica, is_held
        self._live: frozenset[str] = frozenset() if replica else frozenset({""})
        self._divided_since: float | None = None
        """Since when some can reach what they run workspaces on, and some can't."""
        self._counts = asyncio.Event()
        if not replica:
            self._counts.set()

    @property
    def is_shared(self) -> bool:
        """There may be others."""
        return bool(self._replica)

    @property
    def live(self) -> frozenset[str]:
        """Those that count; none while this one does not."""
        return self._live

    @property
    def is_alone(self) -> bool:
        """There is no other now."""
        return self._live == {self._replica}

    def owns(self, name: str) -> bool:
        """Whether it is for this worker to act for a workspace of the node."""
        if not self._replica:
            return True
        return bool(self._live) and self._is_held() and owner(name, self._live) == self._replica

    @property
    def leads(self) -> bool:
        """Whether it is for this worker to do what one of them does for all."""
        return self.owns(self._node)

    async def counted(self) -> None:
        """Wait until this worker is one of them."""
        await self._counts.wait()

    async def follow(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Call `changed` whenever names have come or gone, until cancelled."""
        with self._leases.changes() as changes:
            while True:
                await self._look(changed)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK):
                        await anext(changes)

    async def _look(self, changed: Callable[[], Awaitable[None]]) -> None:
        live = self._seen()
        if len(live) > 1 and self._replica in live - self._live:
            await asyncio.sleep(SETTLE)
            live = self._seen()
        if live == self._live:
            return
        log.info("node.shared", node=self._node, replica=self._replica, replicas=sorted(live))
        self._live = live
        if live:
            self._counts.set()
        else:
            self._counts.clear()
        await changed()

    def _seen(self) -> frozenset[str]:
        """Those that count; none while it is not certain that this one lives."""
        leases = [lease for lease in self._leases.values() if lease.node == self._node]
        live = frozenset(lease.replica for lease in leases)
        if self._replica not in live or not self._is_held():
            return frozenset()
        well = frozenset(lease.replica for lease in leases if not lease.trouble)
        if not well or well == live:
            self._divided_since = None
            return live
        now = time.monotonic()
        self._divided_since = self._divided_since or now
        return well if now - self._divided_since >= HOLD else live
