"""HAProxy's tables as they should be, in the files it starts from and in the process that runs."""

import asyncio
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from mlhub_proxy import metrics
from mlhub_proxy.routes import TABLES, Change, Entries, Tables
from mlhub_proxy.runtime_api import HAProxyUnavailable, RuntimeApi, line
from mlhub_shared.bus.backoff import Backoff

log = structlog.get_logger(__name__)

_MANY = 200
"""More changes than this at once are quicker as a swap."""
_SAVE_AFTER = 1.0
"""Seconds that changes are gathered for before the files are written."""


class Maps:
    """What every source claims, brought to HAProxy; nothing is brought before the first `load`."""

    def __init__(self, api: RuntimeApi, folder: Path) -> None:
        self._api, self._folder = api, folder
        self._tables = Tables()
        self._loaded = False
        self._stale = True
        """HAProxy may hold something else than the tables."""
        self._applying, self._saving = asyncio.Lock(), asyncio.Lock()
        self._unsaved = asyncio.Event()
        self._changed = self._brought = 0
        """Batches of changes that the tables hold, and how many of them HAProxy has."""

    @property
    def problem(self) -> str | None:
        """Why requests may go wrong; None: they don't."""
        if not self._loaded:
            return "the routes are not known yet"
        return "HAProxy does not have the newest routes" if self._stale else None

    def table(self, name: str) -> dict[str, str]:
        """Key to value of one table as it should be."""
        return self._tables.table(name)

    async def load(self, sources: Mapping[str, Entries]) -> None:
        """Make these the only claims, and HAProxy follow them."""
        for source in self._tables.sources - sources.keys():
            self._tables.put(source, {})
        for source, entries in sources.items():
            self._tables.put(source, entries)
        self._loaded = True
        await self.resync()

    async def put(self, sources: Mapping[str, Entries]) -> None:
        """Replace the claims of some sources; returns when HAProxy follows, however long it is away."""
        with metrics.APPLY.time():
            await self._bring([change for source in sources for change in self._tables.put(source, sources[source])])

    async def resync(self) -> None:
        """Bring everything to a HAProxy that may hold something else, if there is anything to bring yet."""
        self._stale = True
        if self._loaded:
            await self._bring([])

    async def save(self) -> None:
        """Write the files that HAProxy starts from; before the first `load` the last ones stay."""
        async with self._saving:
            self._unsaved.clear()
            tables = {name: self.table(name) for name in TABLES} if self._loaded else None
            await asyncio.to_thread(_write, self._folder, tables)

    async def keep_saved(self) -> None:
        """Write the files after changes, so that the next start begins with them; until cancelled."""
        while True:
            await self._unsaved.wait()
            await asyncio.sleep(_SAVE_AFTER)
            await self.save()

    async def _bring(self, changes: list[Change]) -> None:
        """Apply changes that the tables hold already; once HAProxy has failed to follow, only a swap is sure."""
        self._changed += 1
        mine = self._changed
        metrics.ROUTES.set(len(self._tables.sources))
        if changes or self._stale:
            self._unsaved.set()
        async with self._applying:
            if self._brought >= mine:
                return  # a swap was faster
            if not self._stale and len(changes) <= _MANY:
                await self._apply(changes)
            else:
                self._stale = True
            if self._stale:
                await self._swap()
            self._brought = max(self._brought, mine)

    async def _apply(self, changes: list[Change]) -> None:
        try:
            for change in changes:
                await self._api.change(change)
        except HAProxyUnavailable as error:
            log.warning("proxy.change_failed", error=str(error))
            self._stale = True
        except BaseException:
            self._stale = True
            raise

    async def _swap(self) -> None:
        backoff = Backoff(first=0.05, most=1)
        while self._stale:
            started, newest = time.monotonic(), self._changed
            self._stale = False  # whoever finds a reason meanwhile sets it again
            try:
                for name, entries in [(name, self.table(name)) for name in TABLES]:
                    await self._api.swap(name, entries)
            except HAProxyUnavailable as error:
                self._stale = True
                log.debug("proxy.swap_failed", error=str(error))
                await backoff.sleep()
            except BaseException:
                self._stale = True
                raise
            else:
                self._brought = newest
                metrics.SWAPS.inc()
                log.info("proxy.swapped", seconds=round(time.monotonic() - started, 3))


def _write(folder: Path, tables: Mapping[str, Mapping[str, str]] | None) -> None:
    for name in TABLES:
        if tables is not None:
            write_whole(folder / name, "".join(line(*entry) for entry in tables[name].items()))
        elif not (folder / name).exists():
            write_whole(folder / name, "")


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one moment, and for good."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
