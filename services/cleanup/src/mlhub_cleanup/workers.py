"""Notices workers that are gone for long. Nothing is deleted because of it: a lost worker may come back."""

import asyncio
from datetime import datetime, timedelta

import structlog

from mlhub_cleanup.expiry import REQUESTER, derived_id
from mlhub_shared.bus import Bus, Table
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.services import WorkerLease, by_node
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.runtime.clock import Clock

log = structlog.get_logger(__name__)


class LostWorkers:
    """Emits one event for each time that a node with active workspaces has no worker for too long."""

    def __init__(
        self,
        bus: Bus,
        records: Table[WorkspaceRecord],
        leases: Table[WorkerLease],
        clock: Clock,
        after: timedelta,
    ) -> None:
        self._bus, self._records, self._leases, self._clock, self._after = bus, records, leases, clock, after
        self._gone_since: dict[str, datetime] = {}
        self._told: set[str] = set()

    async def watch(self) -> None:
        """Look for ever."""
        await asyncio.gather(self._records.synced(), self._leases.synced())
        while True:
            await self.look()
            await asyncio.sleep(self._after.total_seconds() / 4)

    async def look(self) -> None:
        """Compare the nodes that hold active workspaces with the leases."""
        # Without the bus every lease seems to be there for ever, and after it all seem gone for a moment.
        if not self._leases.is_live:
            return
        now, active = self._clock(), self._active()
        gone = active.keys() - by_node(self._leases.values()).keys()
        self._gone_since = {node: self._gone_since.get(node, now) for node in gone}
        self._told &= gone
        for node in sorted(gone - self._told):
            if now - self._gone_since[node] >= self._after:
                await self._tell(node, active[node])
                self._told.add(node)

    def _active(self) -> dict[str, int]:
        active: dict[str, int] = {}
        for record in self._records.values():
            if record.node is not None and record.phase.takes_room:
                active[record.node] = active.get(record.node, 0) + 1
        return active

    async def _tell(self, node: str, workspaces: int) -> None:
        since = self._gone_since[node]
        log.warning("worker.lost", node=node, workspaces=workspaces)
        await self._bus.emit(
            Event(
                id=derived_id("worker-lost", node, since.isoformat()),
                requester=REQUESTER,
                kind=EventKind.WORKER_LOST,
                message=f"The worker of node {node} is gone; what runs there can't be reached, and is not given up",
                detail={"node": node, "workspaces": workspaces, "since": since.isoformat()},
            )
        )
