"""The workspaces' records on the bus: changed by compare-and-set, each change told in the audit stream."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import structlog

from mlhub_shared.bus import Bus, Entry, Table
from mlhub_shared.contracts.events import Detail, Event, EventKind
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord
from mlhub_shared.errors import BusUnavailable, Conflict

log = structlog.get_logger(__name__)

Decide = Callable[[WorkspaceRecord | None], WorkspaceRecord | None]
"""From the record as it is to the record as it shall be; None: there is none. Called again after a conflict."""

_KINDS = {
    Phase.QUEUED: EventKind.WORKSPACE_QUEUED,
    Phase.PREPARING: EventKind.WORKSPACE_PREPARING,
    Phase.STARTING: EventKind.WORKSPACE_STARTING,
    Phase.READY: EventKind.WORKSPACE_READY,
    Phase.STOPPING: EventKind.WORKSPACE_STOPPING,
    Phase.STOPPED: EventKind.WORKSPACE_STOPPED,
    Phase.FAILED: EventKind.WORKSPACE_FAILED,
}


class RecordStore:
    """Reads and changes records.

    A record is written before its event, so that no event tells what did not happen; an event that a crash swallowed
    is made up for by `ensure_told`, which knows it by its id. Only a deletion is told first: afterwards nothing would
    remind anybody.
    """

    def __init__(self, bus: Bus, table: Table[WorkspaceRecord], *, requester: str) -> None:
        self._bus, self._bucket, self._table = bus, bus.workspaces, table
        self._requester = requester
        self._ahead: dict[str, Entry[WorkspaceRecord]] = {}
        self._busy: set[str] = set()
        self._watchers: list[Callable[[str], None]] = []

    def on_change(self, watcher: Callable[[str], None]) -> None:
        """Have `watcher` called with the name of each record that this store changes, before its event is told."""
        self._watchers.append(watcher)

    async def get(self, name: str) -> WorkspaceRecord | None:
        """The record as the bus has it now; BusUnavailable if that can't be known."""
        entry = await self._bucket.get(name)
        return entry.value if entry else None

    def known(self, name: str) -> WorkspaceRecord | None:
        """The record as last seen, own changes included."""
        entry = self._table.get(name)
        own = self._ahead.get(name)
        if own is not None and own.revision <= self._table.revision:
            del self._ahead[name]
        elif own is not None and (entry is None or own.revision > entry.revision):
            return own.value
        return entry.value if entry else None

    def all(self) -> list[WorkspaceRecord]:
        """All records as last seen, own changes included."""
        names = {name for name, _ in self._table.items()} | set(self._ahead)
        found = (self.known(name) for name in names)
        return [record for record in found if record is not None]

    def busy(self) -> list[WorkspaceRecord]:
        """Those that wait in line or take room: few, where thousands are stopped."""
        found = (self.known(name) for name in self._busy)
        return [record for record in found if record is not None and _is_busy(record)]

    def note(self, name: str) -> None:
        """Learn that a record has changed; whoever follows the table says so for what others write."""
        record = self.known(name)
        if record is not None and _is_busy(record):
            self._busy.add(name)
        else:
            self._busy.discard(name)

    def start_over(self) -> None:
        """Trust the table alone: the bus has been away, and may have lost what it knew."""
        self._ahead.clear()
        self._busy = {record.name for record in self.all() if _is_busy(record)}

    async def change(self, name: str, decide: Decide) -> WorkspaceRecord | None:
        """Bring a record where `decide` wants it, whoever else writes; returns it as it is then."""
        tried: WorkspaceRecord | None = None
        while True:
            entry = await self._bucket.get(name)
            old = entry.value if entry else None
            if tried is not None and old == tried:
                # The write had arrived and only its answer was lost.
                break
            new = decide(old)
            if new == old:
                return old
            if old is not None and _is_erased(old, new):
                await self._bus.emit(deletion_event(old, requester=self._requester))
            try:
                await self._write(name, entry, new)
            except Conflict:
                tried = new
                continue
            break
        self.note(name)
        for watcher in self._watchers:
            watcher(name)
        if new is not None and _is_news(old, new):
            await self._bus.emit(phase_event(new))
        return new

    async def ensure_told(self, record: WorkspaceRecord) -> None:
        """Tell the record's phase if a crash kept it from being told."""
        event = phase_event(record)
        subjects = self._bus.subjects
        last = await self._bus.connection.last(subjects.events, subjects.event(event.kind, record.name))
        if last is None or Event.model_validate_json(last.data).id != event.id:
            await self._bus.emit(event)

    async def tell(
        self,
        record: WorkspaceRecord,
        kind: EventKind,
        message: str,
        *,
        requester: str | None = None,
        correlation_id: str | None = None,
        detail: dict[str, Detail] | None = None,
    ) -> None:
        """Tell something of a workspace that is no change of phase; the bus being away is no reason to fail."""
        event = Event(
            kind=kind,
            workspace=record.workspace,
            generation=record.generation,
            message=message,
            requester=requester or self._requester,
            correlation_id=correlation_id or record.correlation_id or "none",
            detail={"node": record.node, **(detail or {})},
        )
        with _unless_away(kind):
            await self._bus.emit(event)

    async def progress(self, record: WorkspaceRecord, percent: int, message: str) -> None:
        """Tell how far a start is."""
        event = Event(
            kind=EventKind.WORKSPACE_PROGRESSED,
            workspace=record.workspace,
            generation=record.generation,
            message=message,
            progress=percent,
            requester=record.requester,
            correlation_id=record.correlation_id or "none",
        )
        with _unless_away(event.kind):
            await self._bus.emit(event)

    async def _write(self, name: str, entry: Entry[WorkspaceRecord] | None, new: WorkspaceRecord | None) -> None:
        if new is None:
            await self._bucket.delete(name, last=entry.revision if entry else None)
            self._ahead.pop(name, None)
            return
        if entry is None:
            revision = await self._bucket.create(name, new)
        else:
            revision = await self._bucket.update(name, new, last=entry.revision)
        self._ahead[name] = Entry(new, revision)


def phase_event(record: WorkspaceRecord) -> Event:
    """The event of a record's phase; made again from the same record it has the same id."""
    detail: dict[str, Detail] = {"node": record.node, "pool": record.pool}
    if record.reason is not None:
        detail["reason"] = record.reason.value
    return Event(
        id=_event_id(record, record.phase.value, str(record.generation)),
        at=record.phase_since,
        kind=_KINDS[record.phase],
        workspace=record.workspace,
        generation=record.generation,
        message=record.message,
        progress=record.progress if record.phase.is_active else None,
        requester=record.requester or "service:spawner-worker",
        correlation_id=record.correlation_id or "none",
        detail=detail,
    )


def deletion_event(record: WorkspaceRecord, *, requester: str) -> Event:
    """The event of a deletion that has been carried out."""
    return Event(
        id=_event_id(record, "deleted"),
        at=datetime.now(UTC),
        kind=EventKind.WORKSPACE_DELETED,
        workspace=record.workspace,
        generation=record.generation,
        message="Deleted, with its data",
        requester=record.requester or requester,
        correlation_id=record.correlation_id or "none",
        detail={"node": record.node},
    )


def _event_id(record: WorkspaceRecord, *parts: str) -> str:
    text = "/".join((record.name, record.phase_since.isoformat(), *parts))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _is_erased(old: WorkspaceRecord, new: WorkspaceRecord | None) -> bool:
    return old.erasing and (new is None or not new.erasing)


def _is_busy(record: WorkspaceRecord) -> bool:
    return record.phase is Phase.QUEUED or record.phase.takes_room


def _is_news(old: WorkspaceRecord | None, new: WorkspaceRecord) -> bool:
    if old is None or new.phase is not old.phase or new.phase_since != old.phase_since:
        return True
    return new.generation != old.generation and new.phase.is_active


@contextlib.contextmanager
def _unless_away(kind: EventKind) -> Iterator[None]:
    try:
        yield
    except BusUnavailable as error:
        log.warning("event.not_told", kind=kind.value, error=str(error))
