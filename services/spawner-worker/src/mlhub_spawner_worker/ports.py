"""The ports that programs of workspaces listen on: which there are, and where the proxy reaches them."""

import asyncio
from dataclasses import dataclass

from mlhub_shared.contracts.queries import Port
from mlhub_shared.contracts.workspace import Endpoint
from mlhub_shared.errors import NotFound, Permanent
from mlhub_shared.tasks import end_tasks
from mlhub_spawner_worker.backends.base import Backend, Listening
from mlhub_spawner_worker.relays import Relays

_LISTED, _FOUND, _MISSED = 3.0, 1.0, 0.3
"""Seconds that a look is good for: to list, to open what it has shown, and to say that it has not shown it."""
_AT_ONCE = 4
"""Looks side by side; each costs the machine a few processes."""


@dataclass(frozen=True)
class _Look:
    """One look at a workspace, shared by all who want one meanwhile."""

    begun: float
    task: asyncio.Task[list[Listening]]


class WorkspacePorts:
    """What is seen of the workspaces of this node."""

    def __init__(self, backend: Backend, relays: Relays) -> None:
        self._backend, self._relays = backend, relays
        self._looks: dict[str, _Look] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def listed(self, name: str) -> list[Port]:
        """Those that somebody may want to open: not what programs use among themselves."""
        seen = await self._seen(name, age=_LISTED)
        return [Port(port=one.port, program=one.program) for one in seen if not one.is_internal]

    async def open(self, name: str, port: int) -> Endpoint:
        """Where the proxy reaches a port; NotFound if nothing of the workspace listens there."""
        found = await self._find(name, port, age=_FOUND) or await self._find(name, port, age=_MISSED)
        if found is None:
            raise NotFound(f"nothing listens on port {port} of this workspace")
        if found.endpoint is not None:
            return found.endpoint
        entry = self._backend.session(name)
        if entry is None or entry.loopback is None:
            raise NotFound("the workspace is not running")
        if found.obstacle:
            raise Permanent(found.obstacle)
        return await self._relays.open(name, port, entry.loopback)

    async def aclose(self) -> None:
        """Look no more, and close what is open."""
        await end_tasks(*(look.task for look in self._looks.values()))
        await self._relays.aclose()

    async def _find(self, name: str, port: int, *, age: float) -> Listening | None:
        return next((one for one in await self._seen(name, age=age) if one.port == port), None)

    async def _seen(self, name: str, *, age: float) -> list[Listening]:
        now = asyncio.get_running_loop().time()
        look = self._looks.get(name)
        if look is None or (look.task.done() and (now - look.begun > age or _has_failed(look.task))):
            self._forget_old(now)
            look = self._looks[name] = _Look(now, asyncio.ensure_future(self._look(name)))
        return await asyncio.shield(look.task)

    async def _look(self, name: str) -> list[Listening]:
        async with self._slots:
            return await self._backend.listening(name)

    def _forget_old(self, now: float) -> None:
        for name, look in tuple(self._looks.items()):
            if look.task.done() and now - look.begun > _LISTED:
                del self._looks[name]


def _has_failed(task: "asyncio.Task[list[Listening]]") -> bool:
    return task.cancelled() or task.exception() is not None
