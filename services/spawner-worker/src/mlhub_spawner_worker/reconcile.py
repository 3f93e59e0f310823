"""What really runs against what the records say, at every start and whenever the bus was away.

Before anything is stopped or brought back its record is asked for by name: what merely could not be seen is never
taken for gone. What a driver finds out by itself (a process that died meanwhile, with or without its host) is left to
the drivers. Of the workers that share a node each looks after its own names, also when these become more; the one that
leads brings back for all what the bus has lost.
"""

import asyncio
from datetime import timedelta

import structlog

from mlhub_shared.bus import Table
from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord
from mlhub_shared.errors import MLHubError
from mlhub_shared.tasks import first_of
from mlhub_spawner_worker import lifecycle, metrics
from mlhub_spawner_worker.backends.base import Found
from mlhub_spawner_worker.driver import Tools
from mlhub_spawner_worker.lifecycle import Started
from mlhub_spawner_worker.records import Decide
from mlhub_spawner_worker.siblings import Siblings
from mlhub_spawner_worker.telling import SELF
from mlhub_spawner_worker.workspaces import Workspaces

log = structlog.get_logger(__name__)

_RECENT = timedelta(hours=1)
"""How old a settled record may be for its event to be looked for; a worker is seldom away for longer."""


class Reconciler:
    """Brings backend and records together."""

    def __init__(self, tools: Tools, table: Table[WorkspaceRecord], workspaces: Workspaces, siblings: Siblings) -> None:
        self._tools, self._table, self._workspaces, self._siblings = tools, table, workspaces, siblings
        self._shared_anew = asyncio.Event()
        self.done = asyncio.Event()
        """Set when it has been done once since the start."""

    def look(self) -> None:
        """Do it again: names have become this worker's, or another's."""
        self._shared_anew.set()

    async def run(self) -> None:
        """Reconcile at the start, then each time the bus is back, and when names have come or gone."""
        with self._tools.bus.connection.on_reconnect() as reconnected:
            while True:
                await asyncio.gather(self._table.synced(), self._siblings.counted())
                self._shared_anew.clear()
                await self._until_done(reconnected)
                self.done.set()
                await first_of(reconnected, self._shared_anew)

    async def _until_done(self, reconnected: asyncio.Event) -> None:
        backoff, was_away = Backoff(first=0.2, most=10), False
        while True:
            was_away = was_away or reconnected.is_set()
            reconnected.clear()
            try:
                await self._once(was_away=was_away)
            except MLHubError as error:
                log.warning("reconcile.failed", error=str(error))
                await backoff.sleep()
            else:
                return

    async def _once(self, *, was_away: bool) -> None:
        """Stop what should not run, bring back records that were lost, let the drivers go on with the rest.

        `was_away`: the bus was, so that the table may still show what it knew before.
        """
        is_first = not self.done.is_set()
        if is_first or was_away:
            self._tools.store.start_over()
        is_handed_over = not is_first and self._siblings.is_shared
        if is_handed_over:
            # What another worker had in hand waits for no inventory.
            await self._take_up_all(is_first=False)
        lost = []
        for found in await self._tools.backend.inventory():
            name = found.record.name
            if found.record.workspace.hub != self._tools.bus.subjects.hub or not self._looks_after(name):
                continue
            known = None if was_away else self._tools.store.known(name)
            record = known or await self._tools.store.get(name)
            if record is not None and found.record.node == record.node != self._tools.node:
                record = await self._take_over(record)
            if record is None and _may_come_back(found):
                lost.append(found)
            elif record is not None and found.running is not None and self._siblings.owns(name):
                await self._look_at(record, found.running.generation, is_first=is_first)
        await self._restore(lost)
        if not is_handed_over:
            await self._take_up_all(is_first=is_first)

    def _looks_after(self, name: str) -> bool:
        return self._siblings.leads or self._siblings.owns(name)

    async def _take_up_all(self, *, is_first: bool) -> None:
        own = [record for record in self._tools.store.all() if record.node == self._tools.node]
        # What is on its way waits for none of the many that merely run.
        for record in sorted(own, key=lambda record: record.phase in {Phase.READY, Phase.STOPPED, Phase.FAILED}):
            if self._siblings.owns(record.name):
                await self._take_up(record, is_first=is_first)

    async def _look_at(self, record: WorkspaceRecord, runs: int, *, is_first: bool) -> None:
        if self._does_not_belong(record):
            current = await self._tools.store.get(record.name)
            if current is None or not self._does_not_belong(current):
                return
            log.warning("reconcile.stopped", workspace=record.name, phase=record.phase, node=record.node)
            metrics.RECONCILED.labels(action="stopped").inc()
            await self._tools.backend.stop(record.name, grace=self._tools.times.grace, up_to=runs)
        elif is_first and self._siblings.is_alone and record.phase in {Phase.STARTING, Phase.READY}:
            log.info("reconcile.adopted", workspace=record.name)
            metrics.RECONCILED.labels(action="adopted").inc()
            event = Event(
                kind=EventKind.WORKSPACE_ADOPTED,
                workspace=record.workspace,
                generation=record.generation,
                message="Found running by a new worker",
                requester=SELF,
                detail={"node": record.node},
            )
            await self._tools.teller.tell(record.name, event)

    async def _take_over(self, record: WorkspaceRecord) -> WorkspaceRecord | None:
        """Make a record this node's: the worker of this very directory had another name before."""
        before, now = record.node, self._tools.node
        log.warning("reconcile.renamed", workspace=record.name, before=before, node=now)
        metrics.RECONCILED.labels(action="renamed").inc()
        return await self._tools.store.change(
            record.name,
            lambda current: current.model_copy(update={"node": now}) if current and current.node == before else current,
        )

    def _does_not_belong(self, record: WorkspaceRecord) -> bool:
        return record.node != self._tools.node or not record.phase.takes_room

    async def _restore(self, lost: list[Found]) -> None:
        if not lost or not self._siblings.leads:
            return
        log.error("reconcile.store_lost", workspaces=len(lost), node=self._tools.node)
        now = self._tools.clock()
        for found in lost:
            running = Started(found.running.endpoint, found.running.boot) if found.running else None
            restored = lifecycle.restored(found.record, node=self._tools.node, running=running, now=now)
            await self._tools.store.change(restored.name, _unless_there(restored))
            metrics.RECONCILED.labels(action="restored").inc()
        message = f"The bus had lost its store; {len(lost)} workspaces were found again, the history before is gone"
        await self._tools.bus.emit(
            Event(
                kind=EventKind.STORE_REBUILT,
                message=message,
                requester=SELF,
                detail={"node": self._tools.node, "workspaces": len(lost)},
            )
        )

    async def _take_up(self, record: WorkspaceRecord, *, is_first: bool) -> None:
        # Told before it moves on: a predecessor may have been cut off between the record and its event.
        age = self._tools.clock() - record.phase_since
        is_new = is_first or (self._siblings.is_shared and record.name not in self._workspaces.driven())
        if is_new and (record.phase.takes_room or age < _RECENT):
            await self._tools.store.ensure_told(record)
        self._workspaces.wake(record.name)


def _may_come_back(found: Found) -> bool:
    """Not what is only remembered: without data here it may have been somewhere else since, and deleted there."""
    return found.running is not None or found.record.has_data


def _unless_there(restored: WorkspaceRecord) -> Decide:
    return lambda current: current or restored
