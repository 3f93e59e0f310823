"""What is to be done about the end of a workspace; pure: records, timers and the time in, decisions out."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from mlhub_shared.contracts.commands import StopWorkspace, next_generation
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.timers import Purpose, Timer, warns_at
from mlhub_shared.contracts.workspace import Reason, WorkspaceRecord
from mlhub_shared.runtime.clock import microseconds

REQUESTER = "service:cleanup"

Armed = Mapping[Purpose, Timer | None]
"""The timers that are set for one workspace. None: set by an earlier life of this service, for what is not known."""


@dataclass(frozen=True)
class Change:
    """What to do to the timers of one workspace."""

    arm: tuple[tuple[datetime, Timer], ...] = ()
    cancel: tuple[Purpose, ...] = ()


class Action(Enum):
    """What a fired timer means."""

    NOTHING = auto()
    WARN = auto()
    STOP = auto()


def expires(record: WorkspaceRecord) -> datetime | None:
    """When this workspace is to be stopped; None for one that is not up, or has no end."""
    return record.expires_at if record.phase.is_active else None


def is_overdue(record: WorkspaceRecord, now: datetime) -> bool:
    """Whether it is up although its time is over."""
    end = expires(record)
    return end is not None and end <= now


def plan(record: WorkspaceRecord | None, armed: Armed, now: datetime, warn_before: timedelta) -> Change:
    """Make the timers of a workspace match its record (None: it has none)."""
    end = expires(record) if record is not None else None
    if record is None or end is None:
        return Change(cancel=tuple(purpose for purpose in Purpose if purpose in armed))
    arm: list[tuple[datetime, Timer]] = []
    cancel: list[Purpose] = []
    for purpose, when in _times(record, end, warn_before).items():
        set_for = armed.get(purpose)
        if set_for is not None and _is_for(set_for, record):
            continue
        if purpose is Purpose.WARN and when <= now:
            # One of unknown content may be about to fire for this very end: then it is right, else it is stale.
            if set_for is not None:
                cancel.append(purpose)
            continue
        arm.append((when, _timer(record, end, purpose)))
    return Change(tuple(arm), tuple(cancel))


def due(timer: Timer, record: WorkspaceRecord | None, now: datetime) -> Action:
    """What to do when this timer fires: nothing, unless the record is still the one it was armed for."""
    if record is None or expires(record) is None or not _is_for(timer, record):
        return Action.NOTHING
    if timer.purpose is Purpose.EXPIRE:
        return Action.STOP
    return Action.WARN if now < timer.expires_at else Action.NOTHING


def stop_command(record: WorkspaceRecord, end: datetime) -> StopWorkspace:
    """The stop at that end: the same command, however often it is made."""
    return StopWorkspace(
        id=derived_id("stop", record.name, record.generation, end.isoformat()),
        requester=REQUESTER,
        correlation_id=record.correlation_id or derived_id("life", record.name, record.generation),
        workspace=record.workspace,
        # By the end's own time: what the hub asked for after it is newer, and wins.
        generation=next_generation(microseconds(end), record.generation),
        reason=Reason.EXPIRED,
        only_generation=record.generation,
    )


def expiry_event(record: WorkspaceRecord, end: datetime, action: Action) -> Event:
    """What to tell of a warning or a stop: the same event, however often it is made."""
    stopping = action is Action.STOP
    kind = EventKind.WORKSPACE_EXPIRED if stopping else EventKind.WORKSPACE_EXPIRING
    return Event(
        id=derived_id(kind, record.name, record.generation, end.isoformat()),
        requester=REQUESTER,
        correlation_id=record.correlation_id or derived_id("life", record.name, record.generation),
        kind=kind,
        workspace=record.workspace,
        generation=record.generation,
        message="Its time is over" if stopping else "Its time is nearly over",
        detail={"expires_at": end.isoformat()},
    )


def derived_id(*parts: object) -> str:
    """An id that is the same for the same parts, so that the bus drops a second message made of them."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]


def _times(record: WorkspaceRecord, end: datetime, warn_before: timedelta) -> dict[Purpose, datetime]:
    return {Purpose.WARN: warns_at(record.ready_at, end, warn_before=warn_before), Purpose.EXPIRE: end}


def _is_for(timer: Timer, record: WorkspaceRecord) -> bool:
    return (timer.generation, timer.expires_at) == (record.generation, record.expires_at)


def _timer(record: WorkspaceRecord, end: datetime, purpose: Purpose) -> Timer:
    return Timer(
        requester=REQUESTER,
        correlation_id=record.correlation_id or derived_id("life", record.name, record.generation),
        workspace=record.workspace,
        generation=record.generation,
        purpose=purpose,
        expires_at=end,
    )
