"""A key that says "I live" and goes by itself when its owner does."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Generic

import structlog

from mlhub_shared.bus.bucket import Bucket, M
from mlhub_shared.errors import MLHubError
from mlhub_shared.tasks import first_of

log = structlog.get_logger(__name__)

TTL = timedelta(seconds=15)
"""How long a lease outlives its owner's last word."""

CERTAIN = TTL * 4 / 5
"""How long its owner may rely on it; the rest is for what it has under way."""


class Lease(Generic[M]):
    """Writes `value()` under a key every third of its TTL, at once when poked and when the bus is back."""

    def __init__(self, bucket: Bucket[M], key: str, value: Callable[[], M]) -> None:
        self._bucket, self._key, self._value = bucket, key, value
        self._poked = asyncio.Event()
        self._written_at: float | None = None

    @property
    def is_held(self) -> bool:
        """Nobody can have seen it end, whatever has become of the bus."""
        return self._written_at is not None and time.monotonic() - self._written_at < CERTAIN.total_seconds()

    def poke(self) -> None:
        """Write soon: the value has changed."""
        self._poked.set()

    async def run(self) -> None:
        """Keep the lease until cancelled, then give it up."""
        try:
            with self._bucket.connection.on_reconnect() as reconnected:
                while True:
                    self._poked.clear()
                    reconnected.clear()
                    await self._renew()
                    await first_of(self._poked, reconnected, within=TTL / 3)
        finally:
            self._written_at = None
            if self._bucket.connection.is_connected:
                await asyncio.shield(self._give_up())

    async def _renew(self) -> None:
        began = time.monotonic()
        try:
            await self._bucket.put(self._key, self._value(), ttl=TTL)
            self._written_at = began
        except MLHubError as error:
            log.warning("lease.not_renewed", key=self._key, error=str(error))

    async def _give_up(self) -> None:
        try:
            await asyncio.wait_for(self._bucket.delete(self._key), 2)
        except (TimeoutError, MLHubError) as error:
            log.warning("lease.not_given_up", key=self._key, error=str(error))
