"""A bucket kept in memory by one watch, made anew the moment the bus is back."""

import asyncio
from collections.abc import Callable, ItemsView, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Generic

import structlog
from nats.js.kv import KeyValue
from pydantic import ValidationError

from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.bus.bucket import Bucket, Entry, M
from mlhub_shared.tasks import end_tasks, stop_if_cancelled

log = structlog.get_logger(__name__)


class Changes:
    """The keys that changed since the last look, however often each did."""

    def __init__(self, keys: set[str]) -> None:
        self._keys = keys
        self._some = asyncio.Event()
        if keys:
            self._some.set()

    def add(self, keys: set[str]) -> None:
        """Note changed keys."""
        self._keys |= keys
        self._some.set()

    def __aiter__(self) -> "Changes":
        return self

    async def __anext__(self) -> set[str]:
        await self._some.wait()
        self._some.clear()
        keys, self._keys = self._keys, set()
        return keys


class Table(Generic[M]):
    """What a bucket held when the bus last spoke; the entries stay readable while the bus is away."""

    def __init__(self, bucket: Bucket[M]) -> None:
        self.bucket = bucket
        self.revision = 0
        """Of the newest change seen, deletions included."""
        self.is_live = False
        """The watch runs and its replay is through."""
        self._entries: dict[str, Entry[M]] = {}
        self._listeners: set[Changes] = set()
        self._synced = asyncio.Event()

    def get(self, key: str) -> Entry[M] | None:
        """The entry of a key, None if there is none."""
        return self._entries.get(key)

    def value(self, key: str) -> M | None:
        """The value of a key, None if there is none."""
        entry = self._entries.get(key)
        return entry.value if entry else None

    def items(self) -> ItemsView[str, Entry[M]]:
        """All entries by key; don't await while iterating."""
        return self._entries.items()

    def values(self) -> list[M]:
        """All values, in no order."""
        return [entry.value for entry in self._entries.values()]

    def __len__(self) -> int:
        return len(self._entries)

    @contextmanager
    def changes(self) -> Iterator[Changes]:
        """Follow the keys that change; the first look names every key there is."""
        changes = Changes(set(self._entries))
        self._listeners.add(changes)
        try:
            yield changes
        finally:
            self._listeners.discard(changes)

    async def synced(self, timeout: timedelta | None = None) -> None:
        """Wait for the first replay; TimeoutError after `timeout` (None: waits for ever)."""
        await asyncio.wait_for(self._synced.wait(), timeout.total_seconds() if timeout else None)

    async def wait(
        self, key: str, decided: Callable[[Entry[M] | None], bool], *, timeout: timedelta
    ) -> Entry[M] | None:
        """Wait until `decided` says yes of a key's entry and return it; TimeoutError after `timeout`."""
        async with asyncio.timeout(timeout.total_seconds()):
            with self.changes() as changes:
                while not decided(self.get(key)):
                    await anext(changes)
            return self.get(key)

    async def run(self) -> None:
        """Keep the table up to date until cancelled."""
        backoff = Backoff()
        with self.bucket.connection.on_reconnect() as reconnected:
            while True:
                reconnected.clear()
                try:
                    await self._watch_until(reconnected, backoff)
                except asyncio.CancelledError:
                    raise
                except Exception as error:  # noqa: BLE001  (whatever broke the watch, a new one is the cure)
                    log.warning("table.watch_lost", bucket=self.bucket.name, error=str(error) or repr(error))
                    self.is_live = False
                    await backoff.sleep()

    async def _watch_until(self, reconnected: asyncio.Event, backoff: Backoff) -> None:
        kv = await self.bucket.connection.js.key_value(self.bucket.name)
        watch = await kv.watchall()
        pump = asyncio.ensure_future(self._pump(watch, backoff))
        waiting = asyncio.ensure_future(reconnected.wait())
        try:
            await asyncio.wait([pump, waiting], return_when=asyncio.FIRST_COMPLETED)
            self.is_live = False
            if pump.done():
                await pump
        finally:
            await end_tasks(pump, waiting)
            if self.bucket.connection.is_connected:
                await watch.stop()

    async def _pump(self, watch: KeyValue.KeyWatcher, backoff: Backoff) -> None:
        fresh: dict[str, Entry[M]] | None = {}
        newest = 0
        async for update in watch:
            stop_if_cancelled()
            if update is None:
                if fresh is not None:
                    self._swap(fresh, newest)
                    fresh = None
                    backoff.reset()
                continue
            newest = max(newest, update.revision or 0)
            entries = self._entries if fresh is None else fresh
            self._apply(entries, update)
            if fresh is None:
                self.revision = max(self.revision, newest)
                self._tell({update.key})

    def _apply(self, entries: dict[str, Entry[M]], update: KeyValue.Entry) -> None:
        if update.operation in ("DEL", "PURGE") or not update.value:
            entries.pop(update.key, None)
            return
        try:
            value = self.bucket.model.model_validate_json(update.value)
        except ValidationError:
            # The last readable value stays: a bad writer must not take a workspace off the air.
            log.error("table.unreadable", bucket=self.bucket.name, key=update.key, revision=update.revision)
            if (known := self._entries.get(update.key)) is not None:
                entries[update.key] = known
            return
        entries[update.key] = Entry(value, update.revision or 0)

    def _swap(self, fresh: dict[str, Entry[M]], newest: int) -> None:
        # A store that was lost starts its revisions anew, so the newest one seen now is the truth.
        before, self._entries, self.revision = self._entries, fresh, newest
        changed = {key for key in before.keys() | fresh.keys() if before.get(key) != fresh.get(key)}
        self.is_live = True
        self._synced.set()
        self._tell(changed)

    def _tell(self, keys: set[str]) -> None:
        for listener in self._listeners:
            listener.add(keys)
