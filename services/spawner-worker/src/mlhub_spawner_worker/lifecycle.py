"""The life of a workspace as pure functions: record and command or observation in, record out.

What is to be done is no second result: it follows from the record alone (`due`), so that a worker killed between
writing and doing finds it again.

queued ──claimed──► preparing ──Started──► starting ──Answered──► ready
   │                    │                     │                     │
   └─stop─► stopped     └──── stop, Failed ───┴──── stop, Exited ───┴─► stopping ──Gone──► stopped | failed | queued | ∅
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

from mlhub_shared.contracts.commands import Command, DeleteWorkspace, SpawnWorkspace, StopWorkspace
from mlhub_shared.contracts.workspace import FOR_ROOM, Endpoint, Phase, Reason, Wanted, WorkspaceRecord
from mlhub_spawner_worker import sentences

FAILURES = frozenset(Reason) - {Reason.ASKED, Reason.EXPIRED, Reason.SHUTDOWN}
"""Reasons that make the end of a workspace a failure."""

CLAIMED, LAUNCHING, STARTED, READY = 10, 40, 60, 100
"""Percent of the way to ready."""

CLOCKS_DIFFER = timedelta(seconds=30)
"""An expiry that lies further ahead than this was put off after the stop had been sent."""


@dataclass(frozen=True)
class Place:
    """Where a worker stands."""

    pool: str
    node: str


# What comes of a command.


@dataclass(frozen=True)
class Ignored:
    """Nothing is to be done."""

    why: str


@dataclass(frozen=True)
class HandOn:
    """The workspace belongs to another node."""

    pool: str
    node: str


@dataclass(frozen=True)
class Write:
    """This is the record now."""

    record: WorkspaceRecord


@dataclass(frozen=True)
class Forget:
    """A deletion of what has no record: make sure that nothing is left."""


Outcome = Ignored | HandOn | Write | Forget


# What a worker sees.


@dataclass(frozen=True)
class Started:
    """It runs, and does not answer yet."""

    endpoint: Endpoint
    boot: str
    image_id: str = ""


@dataclass(frozen=True)
class Answered:
    """It answers through the proxy."""


@dataclass(frozen=True)
class Exited:
    """It runs no more, by itself."""

    code: int | None
    log_tail: str = ""
    again: bool = False
    reason: Reason = Reason.EXITED
    is_left: bool = False
    """There is something of it still, which takes room until it is gone."""
    message: str = ""


@dataclass(frozen=True)
class Failed:
    """It can't come up; what there is of it must go."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Gone:
    """Nothing of it runs any more, and if its data were to go, they are gone."""

    log_tail: str = ""


@dataclass(frozen=True)
class DiedWithHost:
    """It does not run, and its host or engine has been started anew since it did."""


Observation = Started | Answered | Exited | Failed | Gone | DiedWithHost


class Due(StrEnum):
    """What a record asks its node to do now."""

    NOTHING = "nothing"
    START = "start"
    PROBE = "probe"
    WATCH = "watch"
    STOP = "stop"


_DUE = {
    Phase.PREPARING: Due.START,
    Phase.STARTING: Due.PROBE,
    Phase.READY: Due.WATCH,
    Phase.STOPPING: Due.STOP,
}


def due(record: WorkspaceRecord | None, node: str) -> Due:
    """What this node is to do about a record."""
    if record is None or record.node != node:
        return Due.NOTHING
    return _DUE.get(record.phase, Due.NOTHING)


def same_work(one: WorkspaceRecord | None, other: WorkspaceRecord | None) -> bool:
    """Whether what was begun for one record is still what the other asks for."""
    if one is None or other is None:
        return one is other
    if one.phase is Phase.STOPPING and other.phase is Phase.STOPPING:
        return one.erasing == other.erasing
    return (one.generation, one.phase, one.node) == (other.generation, other.phase, other.node)


def on_command(
    record: WorkspaceRecord | None, command: Command, *, sequence: int, place: Place, now: datetime
) -> Outcome:
    """What comes of a command at this worker; the newest generation wins."""
    if record is not None:
        if command.generation <= record.generation:
            return Ignored("this workspace has a newer command, or this one already")
        if record.node not in (None, place.node):
            return HandOn(record.pool, record.node)
    match command:
        case SpawnWorkspace():
            return Write(_spawned(record, command, sequence=sequence, place=place, now=now))
        case StopWorkspace():
            return _stopped(record, command, now)
        case DeleteWorkspace():
            return Forget() if record is None else Write(_deleted(record, command, place, now))
        case _:
            assert_never(command)


def refused(record: WorkspaceRecord, reason: Reason, message: str, now: datetime) -> WorkspaceRecord:
    """A spawn that can't be, as `on_command` has written it: failed, once what runs is gone."""
    if record.phase is Phase.QUEUED:
        return _settled(record, Phase.FAILED, now, reason=reason, message=message)
    return record.model_copy(update={"reason": reason, "message": message})


def claimed(
    record: WorkspaceRecord, node: str, now: datetime, *, gpu_ids: tuple[str, ...] = (), keeps_data: bool = True
) -> WorkspaceRecord:
    """A queued workspace that this node has room for; `keeps_data`: what it leaves here outlives a stop."""
    if record.phase is not Phase.QUEUED or record.node not in (None, node):
        return record
    changes = {"node": node, "gpu_ids": gpu_ids, "has_data": record.has_data or keeps_data}
    return _moved(record, Phase.PREPARING, now, progress=CLAIMED, message="Preparing", **changes)


def saying(record: WorkspaceRecord, phase: Phase, message: str) -> WorkspaceRecord:
    """What a workspace waits for, or ails one that is ready; unchanged if it is in that phase no more."""
    return record.model_copy(update={"message": message}) if record.phase is phase else record


def postponed(record: WorkspaceRecord) -> WorkspaceRecord:
    """A stopping workspace whose node is away."""
    message = sentences.postponed(record.node, is_deletion=record.wanted is Wanted.DELETED)
    return record.model_copy(update={"message": message})


def extended(record: WorkspaceRecord, expires_at: datetime | None) -> WorkspaceRecord:
    """A running workspace that may live until then."""
    return record.model_copy(update={"expires_at": expires_at})


def observe(
    record: WorkspaceRecord | None, seen: Observation, *, of: WorkspaceRecord, now: datetime
) -> WorkspaceRecord | None:
    """The record after an observation made while working on `of`; None: it goes. Unchanged if it has moved on."""
    if record is None or not same_work(record, of):
        return record
    match seen, record.phase:
        case Started(), Phase.PREPARING:
            return _up(record, seen, now)
        case Answered(), Phase.STARTING:
            return _ready(record, now)
        case Exited(again=True), Phase.STARTING:
            return _again(record, now, "Starting once more: its port was taken")
        case Exited(), Phase.STARTING | Phase.READY:
            return _exited(record, seen, now)
        case Failed(), Phase.PREPARING | Phase.STARTING | Phase.READY:
            return _ending(record, now, reason=seen.reason, message=seen.message)
        case DiedWithHost(), Phase.STARTING | Phase.READY:
            return _again(record, now, "Starting again: the host was restarted")
        case Gone(), Phase.STOPPING:
            return _gone(record, seen, now)
        case _:
            return record


def restored(remembered: WorkspaceRecord, *, node: str, running: Started | None, now: datetime) -> WorkspaceRecord:
    """The record of a workspace that the bus has lost, from what was kept beside it."""
    record = remembered.model_copy(update={"node": node})
    if record.phase in {Phase.STOPPING, Phase.STOPPED, Phase.FAILED}:
        return record
    if running is None:
        message = "It ended while the bus had lost its store"
        return _settled(record, Phase.STOPPED, now, reason=Reason.LOST, message=message)
    phase = Phase.READY if record.ready_at else Phase.STARTING
    return record.model_copy(update={"phase": phase, "endpoint": running.endpoint, "boot": running.boot})


def _spawned(
    record: WorkspaceRecord | None, command: SpawnWorkspace, *, sequence: int, place: Place, now: datetime
) -> WorkspaceRecord:
    fresh = WorkspaceRecord(
        workspace=command.workspace,
        generation=command.generation,
        wanted=Wanted.RUNNING,
        phase=Phase.QUEUED,
        pool=place.pool,
        base_url=command.base_url,
        spec=command.spec,
        sequence=sequence,
        message=FOR_ROOM,
        requester=command.requester,
        correlation_id=command.correlation_id,
        requested_at=command.at,
        phase_since=now,
        has_data=False,
    )
    if record is None:
        return fresh
    kept: dict[str, object] = {"node": record.node, "has_data": record.has_data}
    if record.phase is Phase.QUEUED:
        kept |= {"sequence": record.sequence, "phase_since": record.phase_since}
    elif record.phase.takes_room:
        # What runs must go before the new one comes; `_gone` puts it in line.
        kept |= {
            "phase": Phase.STOPPING,
            "reason": Reason.ASKED,
            "message": "Stopping, to start again",
            "erasing": record.erasing,
            "gpu_ids": record.gpu_ids,
            "phase_since": record.phase_since if record.phase is Phase.STOPPING else now,
        }
    return fresh.model_copy(update=kept)


def _stopped(record: WorkspaceRecord | None, command: StopWorkspace, now: datetime) -> Outcome:
    if record is None:
        return Ignored("there is nothing to stop")
    if command.only_generation not in (None, record.generation):
        return Ignored("the workspace has moved on")
    if command.reason is Reason.EXPIRED and not _is_over(record, now):
        return Ignored("it was extended meanwhile")
    record = _follows(record, command)
    if record.phase is Phase.STOPPING:
        # A failure stays one: the hub stops what could not start.
        reason = record.reason if record.reason in FAILURES else command.reason
        wanted = Wanted.DELETED if record.erasing else Wanted.STOPPED
        return Write(record.model_copy(update={"wanted": wanted, "reason": reason}))
    record = record.model_copy(update={"wanted": Wanted.STOPPED})
    if record.phase is Phase.QUEUED:
        return Write(_settled(record, Phase.STOPPED, now, reason=command.reason, message=""))
    if not record.phase.takes_room:
        return Write(record)
    return Write(_ending(record, now, reason=command.reason, message="Stopping"))


def _deleted(record: WorkspaceRecord, command: DeleteWorkspace, place: Place, now: datetime) -> WorkspaceRecord:
    changes = {
        "wanted": Wanted.DELETED,
        "erasing": True,
        "node": record.node or place.node,
        "reason": Reason.ASKED,
        "message": "Deleting",
        "endpoint": None,
        "expires_at": None,
    }
    record = _follows(record, command).model_copy(update=changes)
    return record if record.phase is Phase.STOPPING else _moved(record, Phase.STOPPING, now)


def _is_over(record: WorkspaceRecord, now: datetime) -> bool:
    return record.expires_at is not None and record.expires_at <= now + CLOCKS_DIFFER


def _follows(record: WorkspaceRecord, command: StopWorkspace | DeleteWorkspace) -> WorkspaceRecord:
    return record.model_copy(
        update={
            "generation": command.generation,
            "requester": command.requester,
            "correlation_id": command.correlation_id,
        }
    )


def _up(record: WorkspaceRecord, seen: Started, now: datetime) -> WorkspaceRecord:
    changes = {
        "endpoint": seen.endpoint,
        "boot": seen.boot,
        "image_id": seen.image_id,
        "started_at": now,
        "progress": STARTED,
        "message": "Waiting for its first answer",
    }
    return _moved(record, Phase.STARTING, now, **changes)


def _ready(record: WorkspaceRecord, now: datetime) -> WorkspaceRecord:
    expires_at = record.expires_at
    if expires_at is None and record.spec.lifetime is not None and record.ready_at is None:
        expires_at = now + record.spec.lifetime
    return _moved(record, Phase.READY, now, ready_at=now, expires_at=expires_at, progress=READY, message="")


def _again(record: WorkspaceRecord, now: datetime, message: str) -> WorkspaceRecord:
    # Its expiry stays: a restart of the host is no reason to live longer.
    return _moved(record, Phase.PREPARING, now, endpoint=None, progress=CLAIMED, message=message)


def _exited(record: WorkspaceRecord, seen: Exited, now: datetime) -> WorkspaceRecord:
    # Who ends before the first answer has not done what it was started for.
    if seen.code == 0 and seen.reason is Reason.EXITED and record.phase is Phase.READY and not seen.is_left:
        return _settled(record, Phase.STOPPED, now, reason=seen.reason, message=seen.message or "It ended by itself")
    starved = seen.reason is Reason.OUT_OF_MEMORY
    message = sentences.out_of_memory(record.spec.mem_limit) if starved else sentences.ended(seen.code)
    if seen.is_left:
        ended = _ending(record, now, reason=seen.reason, message=seen.message or message)
    else:
        ended = _settled(record, Phase.FAILED, now, reason=seen.reason, message=seen.message or message)
    return ended.model_copy(update={"log_tail": seen.log_tail})


def _gone(record: WorkspaceRecord, seen: Gone, now: datetime) -> WorkspaceRecord | None:
    reason = record.reason or Reason.ASKED
    if record.wanted is Wanted.DELETED:
        return None
    if record.wanted is Wanted.RUNNING and reason is Reason.ASKED:
        down = _down(record) | ({"node": None, "has_data": False} if record.erasing else {})
        return _moved(record, Phase.QUEUED, now, **down | {"reason": None, "message": FOR_ROOM})
    if reason in FAILURES:
        failed = _settled(record, Phase.FAILED, now, reason=reason, message=record.message)
        return failed.model_copy(update={"log_tail": seen.log_tail or record.log_tail})
    return _settled(record, Phase.STOPPED, now, reason=reason, message="")


def _ending(record: WorkspaceRecord, now: datetime, *, reason: Reason, message: str) -> WorkspaceRecord:
    changes = {"reason": reason, "message": message, "endpoint": None, "expires_at": None}
    return _moved(record, Phase.STOPPING, now, **changes)


def _settled(record: WorkspaceRecord, phase: Phase, now: datetime, *, reason: Reason, message: str) -> WorkspaceRecord:
    return _moved(record, phase, now, **_down(record), reason=reason, message=message)


def _down(record: WorkspaceRecord) -> dict[str, object]:
    """What becomes of a record when nothing of it runs: without data there, no node is its own any more."""
    node = record.node if record.has_data else None
    return {"node": node, "gpu_ids": (), "endpoint": None, "expires_at": None, "erasing": False, "progress": 0}


def _moved(record: WorkspaceRecord, phase: Phase, now: datetime, **changes: object) -> WorkspaceRecord:
    return record.model_copy(update={"phase": phase, "phase_since": now, **changes})
