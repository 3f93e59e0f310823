"""Looks for what the events and timers missed. What it merely failed to see is never deleted."""

import asyncio
from datetime import datetime, timedelta

import structlog

from mlhub_cleanup.commands import Commands
from mlhub_cleanup.deletions import is_left_behind, past_deletions
from mlhub_cleanup.expiry import REQUESTER, derived_id, is_overdue
from mlhub_cleanup.hub_api import HubApi
from mlhub_cleanup.metrics import SWEEPS, UNCLAIMED
from mlhub_cleanup.reports import ExpiredReport, Item, Outcome, UsersReport
from mlhub_shared.bus import Bus, Table
from mlhub_shared.contracts.events import Event
from mlhub_shared.contracts.message import new_id
from mlhub_shared.contracts.queries import LIST_RESOURCES, ListResources, Resource, Resources
from mlhub_shared.contracts.services import WorkerLease, by_node
from mlhub_shared.contracts.workspace import Wanted, WorkspaceRecord
from mlhub_shared.errors import MLHubError
from mlhub_shared.runtime.clock import Clock

log = structlog.get_logger(__name__)

_FIRST = timedelta(minutes=1)
"""From the start of the service to its first sweep, if the interval is longer."""


class Sweep:
    """One look after the other; none remembers another."""

    def __init__(
        self,
        bus: Bus,
        records: Table[WorkspaceRecord],
        leases: Table[WorkerLease],
        commands: Commands,
        hub: HubApi,
        clock: Clock,
    ) -> None:
        self._bus, self._records, self._leases = bus, records, leases
        self._commands, self._hub, self._clock = commands, hub, clock

    async def run(self, interval: timedelta) -> None:
        """Sweep for ever."""
        await asyncio.gather(self._records.synced(), self._leases.synced())
        await asyncio.sleep(min(interval, _FIRST).total_seconds())
        while True:
            await self.once()
            await asyncio.sleep(interval.total_seconds())

    async def once(self) -> tuple[UsersReport, ExpiredReport]:
        """One sweep as the interval makes it."""
        expired = await self.expired(dry_run=False)
        users = await self.users(dry_run=False)
        SWEEPS.labels(result="incomplete" if users.problem else "complete").inc()
        log.info("sweep.done", problem=users.problem, missing=_outcomes(users), expired=_outcomes(expired))
        return users, expired

    async def expired(self, *, dry_run: bool) -> ExpiredReport:
        """Workspaces that are up although their time is over; stopped unless it is a dry run."""
        now = self._clock()
        report = ExpiredReport(dry_run=dry_run, at=now)
        for record in self._sorted():
            if is_overdue(record, now):
                outcome = Outcome.FOUND if dry_run else await self._expire(record)
                report.workspaces.append(Item.of(record, outcome))
        return report

    async def users(self, *, dry_run: bool, ordered_by: str | None = None) -> UsersReport:
        """Workspaces whose user is gone; deleted unless it is a dry run.

        `ordered_by` is whoever wants them all deleted. None: nobody is watching, and only what a deletion vouches for
        goes. That the hub does not know a user is not enough: it may have lost its database, or have another one.
        """
        report = UsersReport(dry_run=dry_run, at=self._clock())
        # The records first: whoever comes while the users are listed is then in no danger.
        owned = self._owned()
        report.unclaimed, report.silent_nodes = await self._unclaimed()
        try:
            known = await self._hub.users()
            missing = owned.keys() - known
            deletions = await past_deletions(self._bus) if missing else {}
        except MLHubError as error:
            report.problem = str(error)
            return report
        report.users = len(known)
        for record in (record for user in sorted(missing) for record in owned[user]):
            event = deletions.get(record.workspace.user)
            voucher = event if event is not None and is_left_behind(record, event) else None
            outcome = Outcome.FOUND if dry_run else await self._clean_up(record, voucher, report.at, ordered_by)
            report.workspaces.append(Item.of(record, outcome, user_deleted_at=voucher.at if voucher else None))
        return report

    async def _clean_up(
        self, record: WorkspaceRecord, voucher: Event | None, as_of: datetime, ordered_by: str | None
    ) -> Outcome:
        if voucher is None and ordered_by is None:
            return Outcome.HELD
        try:
            if not await self._hub.is_gone(record.workspace.user):
                return Outcome.KEPT
            if voucher is not None:
                sent = await self._commands.delete_for(voucher, record, as_of=as_of)
            else:
                sent = await self._commands.delete(
                    record,
                    as_of=as_of,
                    cause=derived_id("sweep", record.generation),
                    requester=ordered_by or REQUESTER,
                    correlation_id=new_id(),
                )
        except MLHubError as error:
            log.warning("sweep.not_deleted", workspace=record.name, error=str(error))
            return Outcome.FAILED
        return Outcome.ASKED if sent else Outcome.KEPT

    async def _expire(self, record: WorkspaceRecord) -> Outcome:
        try:
            return Outcome.ASKED if await self._commands.expire(record) else Outcome.KEPT
        except MLHubError as error:
            log.warning("sweep.not_stopped", workspace=record.name, error=str(error))
            return Outcome.FAILED

    async def _unclaimed(self) -> tuple[list[Resource], list[str]]:
        nodes = sorted(by_node(self._leases.values()))
        held = await asyncio.gather(*(self._held_by(node) for node in nodes))
        unclaimed = [item for items in held for item in items or () if not self._is_claimed(item)]
        UNCLAIMED.set(len(unclaimed))
        return unclaimed, [node for node, items in zip(nodes, held, strict=True) if items is None]

    async def _held_by(self, node: str) -> list[Resource] | None:
        try:
            return (await self._bus.ask(LIST_RESOURCES, ListResources(), Resources, node=node)).resources
        except MLHubError as error:
            log.warning("sweep.node_silent", node=node, error=str(error))
            return None

    def _is_claimed(self, resource: Resource) -> bool:
        return resource.workspace is not None and self._records.get(resource.workspace.name) is not None

    def _owned(self) -> dict[str, list[WorkspaceRecord]]:
        owned: dict[str, list[WorkspaceRecord]] = {}
        for record in self._sorted():
            if record.wanted is not Wanted.DELETED:
                owned.setdefault(record.workspace.user, []).append(record)
        return owned

    def _sorted(self) -> list[WorkspaceRecord]:
        return sorted(self._records.values(), key=lambda record: record.name)


def _outcomes(report: UsersReport | ExpiredReport) -> dict[str, int]:
    found = [item.outcome.value for item in report.workspaces]
    return {outcome: found.count(outcome) for outcome in sorted(set(found))}
