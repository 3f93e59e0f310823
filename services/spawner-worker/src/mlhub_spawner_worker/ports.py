"""The ports that programs of workspaces listen on: which there are, and where the proxy reaches them."""

import asyncio
from dataclasses import dataclass

from mlhub_shared.contracts.queries import Port
from mlhub_shared.contracts.workspace import Endpoint
from mlhub_shared.errors import NotFound, Permanent
from mlhub_shared.tasks import end_tasks
from mlhub_spawner_worker.backends.base import Backend, Listening
from mlhub_spawner_worker.entry import Entry
from mlhub_spawner_worker.relays import Relays

_LISTED, _MISSED = 3.0, 0.3
"""Seconds that a look is good for: to list, and to say that it has not shown a port."""
_FOUND, _FOUND_OWN = 1.0, 20.0
"""Likewise to open what it has shown. Of a loopback that others share it may soon be theirs; of its own never."""
_AT_ONCE = 4
"""Looks side by side; each costs the machine a few processes."""


@dataclass(frozen=True)
class _Look:
    """One look at a workspace, shared by all who want one meanwhile."""

    entry: Entry
    """Another one means that the workspace has been started anew."""
    begun: float
    task: asyncio.Task[list[Listening]]

    def is_good(self, entry: Entry, since: float) -> bool:
        """Whether it says what one that is begun now would, or near enough."""
        if self.entry != entry:
            return False
        return not self.task.done() or (self.begun >= since and not _has_failed(self.task))


class WorkspacePorts:
    """What is seen of the workspaces of this node."""

    def __init__(self, backend: Backend, relays: Relays) -> None:
        self._backend, self._relays = backend, relays
        self._looks: dict[str, _Look] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def listed(self, name: str) -> list[Port]:
        """Those that somebody may want to open: not what programs use among themselves."""
        entry = self._backend.session(name)
        seen = await self._seen(name, entry, age=_LISTED) if entry is not None else []
        return [Port(port=one.port, program=one.program) for one in seen if not one.is_internal]

    async def open(self, name: str, port: int) -> Endpoint:
        """Where the proxy reaches a port; NotFound if nothing of the workspace listens there."""
        entry = self._backend.session(name)
        if entry is None:
            raise NotFound("the workspace is not running")
        for age in (_FOUND if entry.loopback is None else _FOUND_OWN, _MISSED):
            seen = await self._seen(name, entry, age=age)
            if (found := next((one for one in seen if one.port == port), None)) is not None:
                return await self._reach(name, entry, found)
        raise NotFound(f"nothing listens on port {port} of this workspace")

    async def aclose(self) -> None:
        """Look no more, and close what is open."""
        await end_tasks(*(look.task for look in self._looks.values()))
        await self._relays.aclose()

    async def _reach(self, name: str, entry: Entry, found: Listening) -> Endpoint:
        if found.endpoint is not None:
            return found.endpoint
        if found.obstacle or entry.loopback is None:
            raise Permanent(found.obstacle or f"port {found.port} of this workspace can't be reached")
        return await self._relays.open(name, found.port, entry.loopback)

    async def _seen(self, name: str, entry: Entry, *, age: float) -> list[Listening]:
        now = asyncio.get_running_loop().time()
        look = self._looks.get(name)
        if look is None or not look.is_good(entry, now - age):
            self._forget_old(now)
            look = self._looks[name] = _Look(entry, now, asyncio.ensure_future(self._look(name)))
        return await asyncio.shield(look.task)

    async def _look(self, name: str) -> list[Listening]:
        async with self._slots:
            return await self._backend.listening(name)

    def _forget_old(self, now: float) -> None:
        for name, look in tuple(self._looks.items()):
            if look.task.done() and now - look.begun > _FOUND_OWN:
                del self._looks[name]


def _has_failed(task: "asyncio.Task[list[Listening]]") -> bool:
    return task.cancelled() or task.exception() is not None
