"""Whether this node is being emptied; kept over restarts of its worker.

A node that is being emptied takes no workspace, also none that returns to its data: those wait in line, are told why,
and start by themselves when the node takes workspaces again. Otherwise it would never be empty, and whoever is about
to pull its plug would do so under somebody who has just come back. What runs runs on until somebody stops it.
"""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from mlhub_shared.bus import Bucket, Table
from mlhub_shared.contracts.services import NodeMark
from mlhub_shared.errors import Conflict, Temporary

_SEEN_WITHIN = timedelta(seconds=2)
"""For what was just written to come back by the watch."""


class Drain(Protocol):
    """What is known of it, and how it is changed."""

    @property
    def is_on(self) -> bool:
        """It takes no workspaces."""

    async def set(self, *, is_on: bool) -> bool:
        """Begin or end it; False if that is how it was. Temporary if it can't be kept."""


class LocalDrain:
    """A mark in the worker's data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._mark = data_dir / "draining"
        self._is_on = self._mark.exists()

    @property
    def is_on(self) -> bool:
        """It takes no workspaces."""
        return self._is_on

    async def set(self, *, is_on: bool) -> bool:
        """Begin or end it; False if that is how it was. Temporary if it can't be kept."""
        if is_on == self._is_on:
            return False
        try:
            await asyncio.to_thread(self._keep, is_on)
        except OSError as error:
            raise Temporary(f"the node can't keep this in mind: {error.strerror}") from error
        self._is_on = is_on
        return True

    def _keep(self, is_on: bool) -> None:
        if is_on:
            self._mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._mark.touch(mode=0o600)
        else:
            self._mark.unlink(missing_ok=True)


class SharedDrain:
    """A mark on the bus, for all the workers that share a node. It is never taken away, only turned."""

    def __init__(self, marks: Table[NodeMark], node: str) -> None:
        self._marks, self._node = marks, node
        self._bucket: Bucket[NodeMark] = marks.bucket
        self._known: NodeMark | None = None

    @property
    def is_on(self) -> bool:
        """It takes no workspaces."""
        mark = self._marks.value(self._node) or self._known
        return mark is not None and mark.draining

    async def set(self, *, is_on: bool) -> bool:
        """Begin or end it; False if that is how it was. Temporary if it can't be kept."""
        entry = await self._bucket.get(self._node)
        if is_on == (entry.value.draining if entry is not None else self.is_on):
            return False
        mark = NodeMark(draining=is_on)
        try:
            if entry is None:
                revision = await self._bucket.create(self._node, mark)
            else:
                revision = await self._bucket.update(self._node, mark, last=entry.revision)
            await self._marks.wait(
                self._node, lambda seen: seen is not None and seen.revision >= revision, timeout=_SEEN_WITHIN
            )
        except Conflict as error:
            raise Temporary("somebody else has just changed it: look again") from error
        except TimeoutError as error:
            raise Temporary("the bus is slow to tell of it: look again") from error
        return True

    async def follow(self, changed: Callable[[], object]) -> None:
        """Call `changed` when it is begun or ended, by whichever worker, until cancelled."""
        await self._marks.synced()
        with self._marks.changes() as changes:
            while True:
                mark = self._marks.value(self._node)
                if mark is None and self._known is not None:
                    # The bus has lost its store: an administrator's word is not forgotten with it.
                    with contextlib.suppress(Conflict):
                        await self._bucket.create(self._node, self._known)
                elif mark != self._known:
                    self._known = mark
                    changed()
                await anext(changes)
