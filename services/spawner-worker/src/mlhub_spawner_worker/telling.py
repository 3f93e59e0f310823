"""What happens to workspaces, told in the audit stream: each thing once, and those of one workspace in order."""

import asyncio
import contextlib
import hashlib
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.events import Detail, Event, EventKind
from mlhub_shared.contracts.message import new_id
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord
from mlhub_shared.errors import BusUnavailable

log = structlog.get_logger(__name__)

KINDS = {
    Phase.QUEUED: EventKind.WORKSPACE_QUEUED,
    Phase.PREPARING: EventKind.WORKSPACE_PREPARING,
    Phase.STARTING: EventKind.WORKSPACE_STARTING,
    Phase.READY: EventKind.WORKSPACE_READY,
    Phase.STOPPING: EventKind.WORKSPACE_STOPPING,
    Phase.STOPPED: EventKind.WORKSPACE_STOPPED,
    Phase.FAILED: EventKind.WORKSPACE_FAILED,
}

SELF = "service:spawner-worker"
"""Requester of what the worker does of its own accord."""

_PATIENCE = timedelta(seconds=5)
"""For one event, before it is kept for later."""

STANDS = 3.0
"""Seconds until a sentence is worth a write: most starts are over by then."""

BETWEEN = 10.0
"""Seconds between two such writes at least."""

_LATER = 3
"""Seconds between two attempts to tell what could not be told."""


class Teller:
    """Tells events; what the bus does not take now it gets later, in order."""

    def __init__(self, bus: Bus, *, patience: timedelta = _PATIENCE) -> None:
        self._bus, self._patience = bus, patience
        self._untold: dict[str, deque[Event]] = defaultdict(deque)
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def tell(self, name: str, event: Event) -> None:
        """Tell an event of a workspace, now or when the bus is back."""
        self._untold[name].append(event)
        await self._try(name)

    def mention(self, name: str, event: Event) -> None:
        """Tell of a workspace's progress while it goes on; only the newest word waits for the bus."""
        waiting = self._untold[name]
        # The first may be on its way already.
        if len(waiting) > 1 and waiting[-1].kind is EventKind.WORKSPACE_PROGRESSED:
            waiting.pop()
        waiting.append(event)
        if not self._locks[name].locked():
            self._bus.run(self._try(name))

    async def tell_first(self, name: str, event: Event) -> None:
        """Tell an event before what it tells of is final; BusUnavailable if it can't be told now."""
        await self._flush(name)
        await self._bus.emit(event)

    async def was_told(self, event: Event, name: str) -> bool:
        """Whether the last event of this kind is this very one."""
        subjects = self._bus.subjects
        last = await self._bus.connection.last(subjects.events, subjects.event(event.kind, name))
        return last is not None and Event.model_validate_json(last.data).id == event.id

    async def run(self) -> None:
        """Tell what could not be told, until cancelled."""
        while True:
            await asyncio.sleep(_LATER)
            for name in list(self._untold):
                try:
                    await self._flush(name)
                except BusUnavailable:
                    break

    async def _try(self, name: str) -> None:
        try:
            await self._flush(name)
        except BusUnavailable as error:
            log.warning("event.not_told_yet", workspace=name, error=str(error))

    async def _flush(self, name: str) -> None:
        async with self._locks[name]:
            waiting = self._untold[name]
            while waiting:
                await self._bus.emit(waiting[0], patience=self._patience)
                waiting.popleft()
            del self._untold[name]


class Standing:
    """What a start does or waits for, put where it is looked up as soon as it has stood for a while."""

    def __init__(self, put: Callable[[str], Awaitable[None]]) -> None:
        self._put, self._said, self._news = put, "", asyncio.Event()

    def say(self, sentence: str) -> None:
        """This it is from now on."""
        if sentence != self._said:
            self._said = sentence
            self._news.set()

    async def run(self) -> None:
        """Put each sentence that stands, once, until cancelled."""
        while True:
            await self._news.wait()
            while self._news.is_set():
                self._news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STANDS):
                        await self._news.wait()
            await self._put(self._said)
            await asyncio.sleep(BETWEEN)


def phase_event(record: WorkspaceRecord) -> Event:
    """The event of a record's phase; made again from the same record it has the same id."""
    detail: dict[str, Detail] = {"node": record.node, "pool": record.pool}
    if record.reason is not None:
        detail["reason"] = record.reason.value
    return Event(
        id=_event_id(record, record.phase.value, str(record.generation)),
        at=record.phase_since,
        kind=KINDS[record.phase],
        workspace=record.workspace,
        generation=record.generation,
        message=record.message,
        progress=record.progress if record.phase.is_active else None,
        requester=record.requester or SELF,
        correlation_id=record.correlation_id or new_id(),
        detail=detail,
    )


def deletion_event(record: WorkspaceRecord) -> Event:
    """The event of a deletion that has been carried out; made again it has the same id."""
    return Event(
        id=_event_id(record, "deleted"),
        at=datetime.now(UTC),
        kind=EventKind.WORKSPACE_DELETED,
        workspace=record.workspace,
        generation=record.generation,
        message="Deleted, with its data",
        requester=record.requester or SELF,
        correlation_id=record.correlation_id or new_id(),
        detail={"node": record.node},
    )


def progress_event(record: WorkspaceRecord, percent: int, message: str) -> Event:
    """How far a start is."""
    return Event(
        kind=EventKind.WORKSPACE_PROGRESSED,
        workspace=record.workspace,
        generation=record.generation,
        message=message,
        progress=percent,
        requester=record.requester or SELF,
        correlation_id=record.correlation_id or new_id(),
    )


def _event_id(record: WorkspaceRecord, *parts: str) -> str:
    text = "/".join((record.name, record.phase_since.isoformat(), *parts))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
