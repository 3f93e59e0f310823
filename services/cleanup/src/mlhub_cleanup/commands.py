"""What the clean-up asks the workers for: stops at the end of a life, deletions of what nobody owns any more."""

from datetime import datetime, timedelta

import structlog

from mlhub_cleanup.expiry import Action, derived_id, expires, expiry_event, stop_command
from mlhub_cleanup.metrics import ASKED
from mlhub_shared.bus import Bus
from mlhub_shared.contracts.commands import DeleteWorkspace, next_generation
from mlhub_shared.contracts.events import Event
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.runtime.clock import Clock, microseconds

log = structlog.get_logger(__name__)

_REMEMBERED = timedelta(seconds=60)
"""The bus drops a second copy of an event for at least that long; later only the last command tells."""


class Commands:
    """Sends commands and the events that go with them; each of them may be repeated."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus, self._clock = bus, clock

    async def warn(self, record: WorkspaceRecord) -> None:
        """Tell that the end is near."""
        if (end := expires(record)) is not None:
            await self._bus.emit(expiry_event(record, end, Action.WARN))

    async def expire(self, record: WorkspaceRecord) -> bool:
        """Stop a workspace whose time is over; False if something newer has been asked for."""
        end = expires(record)
        if end is None:
            return False
        command = stop_command(record, end)
        if self._clock() - end > _REMEMBERED and await self._is_last(command.id, record):
            return True
        await self._bus.emit(expiry_event(record, end, Action.STOP))
        sent = await self._bus.send(command, pool=record.pool, node=record.node)
        log.info("workspace.expired", workspace=record.name, expires_at=end.isoformat(), sent=sent)
        ASKED.labels(cause="expired").inc()
        return sent

    async def delete(
        self, record: WorkspaceRecord, *, as_of: datetime, cause: str, requester: str, correlation_id: str
    ) -> bool:
        """Delete a workspace and its data as of that time; False if something newer has been asked for.

        `cause` names what made it necessary, so that a repetition is the same command.
        """
        command = DeleteWorkspace(
            id=derived_id("delete", record.name, cause),
            requester=requester,
            correlation_id=correlation_id,
            workspace=record.workspace,
            generation=next_generation(microseconds(as_of), record.generation),
        )
        sent = await self._bus.send(command, pool=record.pool, node=record.node)
        log.info("workspace.deletion_asked", workspace=record.name, cause=cause, sent=sent)
        ASKED.labels(cause="deleted").inc()
        return sent

    async def delete_for(self, event: Event, record: WorkspaceRecord, *, as_of: datetime) -> bool:
        """Delete what a deleted user has left; the same command, whoever finds it and however often."""
        return await self.delete(
            record,
            as_of=as_of,
            cause=event.id,
            requester=event.requester,
            correlation_id=event.correlation_id,
        )

    async def _is_last(self, command_id: str, record: WorkspaceRecord) -> bool:
        last = await self._bus.last_command(record.pool, record.name, record.node)
        return last is not None and last[0].id == command_id
