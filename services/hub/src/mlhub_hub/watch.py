"""Tells JupyterHub what became of its servers the moment a record says so."""

import asyncio

import structlog

from mlhub_hub.context import GRACE, HubContext
from mlhub_hub.spawner import BusSpawner
from mlhub_shared.contracts.workspace import Phase

log = structlog.get_logger(__name__)

_LATER = 1.0
"""Seconds until a server is looked at again whose start or stop JupyterHub has not finished."""

_FORGOTTEN = 2 * GRACE.total_seconds()


class Watch:
    """Follows the records for the servers that JupyterHub has in hand."""

    def __init__(self, context: HubContext) -> None:
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            with self._context.workspaces.changes() as changes:
                async for names in changes:
                    for name in names:
                        self._note(name)
        finally:
            for task in self._tasks:
                task.cancel()

    def _note(self, name: str) -> None:
        context = self._context
        now = asyncio.get_running_loop().time()
        record = context.workspaces.value(name)
        if record is None:
            for old in [other for other, since in context.missing_since.items() if now - since > _FORGOTTEN]:
                del context.missing_since[old]
            context.missing_since.setdefault(name, now)
        else:
            context.missing_since.pop(name, None)
        spawner = context.spawners.get(name)
        if spawner is None or not spawner.active:
            if record is not None and record.phase is Phase.READY:
                # A wish to stop it may have been lost with the bus, or the hub's database with its servers.
                log.warning("workspace.not_in_hand", workspace=name)
            return
        if record is None or not record.phase.is_active:
            self._look_at(name, after=0)

    def _look_at(self, name: str, *, after: float) -> None:
        task = asyncio.ensure_future(self._look(name, after))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(self, name: str, after: float) -> None:
        await asyncio.sleep(after)
        record, spawner = self._context.workspaces.value(name), self._context.spawners.get(name)
        if spawner is None or not spawner.active or (record is not None and record.phase.is_active):
            return
        if spawner.ready:
            await self._tell(spawner, has_record=record is not None)
        else:
            self._look_at(name, after=_LATER)

    async def _tell(self, spawner: BusSpawner, *, has_record: bool) -> None:
        name = spawner.workspace.name
        if await spawner.poll_and_notify() is not None:
            log.info("workspace.ended", workspace=name)
        elif not has_record:
            self._look_at(name, after=GRACE.total_seconds() / 10)
