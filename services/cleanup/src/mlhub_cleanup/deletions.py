"""Removes what deleted users leave behind, when the event says so."""

import asyncio
from datetime import timedelta

import structlog

from mlhub_cleanup.commands import Commands
from mlhub_shared.bus import Bus, Delivery, Table
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.workspace import Wanted, WorkspaceRecord
from mlhub_shared.errors import Permanent, Temporary
from mlhub_shared.runtime.clock import Clock

log = structlog.get_logger(__name__)

_SYNC = timedelta(seconds=5)


class Deletions:
    """Consumes the deletions of users. The timers of deleted workspaces go with their records."""

    def __init__(self, bus: Bus, records: Table[WorkspaceRecord], commands: Commands, clock: Clock) -> None:
        self._bus, self._records, self._commands, self._clock = bus, records, commands, clock

    def consume(self) -> asyncio.Task[None]:
        """Handle deletions, also those that happened while nobody was there."""
        return self._bus.consume(
            stream=self._bus.subjects.events,
            durable="cleanup",
            filters=[self._bus.subjects.events_named(EventKind.USER_DELETED)],
            decode=Event.model_validate_json,
            handler=self.on_user_deleted,
        )

    async def on_user_deleted(self, event: Event, _: Delivery) -> None:
        """Delete every workspace that the user had, running or not."""
        if event.user is None:
            raise Permanent("the event names no user")
        try:
            await self._records.synced(_SYNC)
        except TimeoutError as error:
            raise Temporary("the records are not there yet") from error
        left = [record for record in self._records.values() if is_left_behind(record, event)]
        for record in left:
            if not await self._commands.delete_for(event, record, as_of=self._clock()):
                raise Temporary("a newer command is there than the record tells of")
        log.info("user.cleaned_up", user=event.user, workspaces=len(left))


async def past_deletions(bus: Bus) -> dict[str, Event]:
    """The last deletion of every user whom the audit stream says to be deleted; BusUnavailable without the bus."""
    return {event.user: event async for event in bus.past_events(EventKind.USER_DELETED) if event.user is not None}


def is_left_behind(record: WorkspaceRecord, event: Event) -> bool:
    """Whether a workspace is one of those that the deleted user had."""
    # Somebody of the same name may have come since: the event is kept for ever and can arrive late.
    came_later = record.requested_at > event.at
    return record.workspace.user == event.user and record.wanted is not Wanted.DELETED and not came_later
