"""The steps of a start, from the events so far and the record."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from mlhub_hub.pages.words import duration, ordinal
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord


class State(StrEnum):
    """Of one step."""

    DONE = "done"
    NOW = "now"
    TODO = "todo"
    FAILED = "failed"


@dataclass(frozen=True)
class Step:
    """One line of the list."""

    title: str
    state: State
    since: datetime | None = None
    took: str = ""
    detail: str = ""


_PROGRESS = {EventKind.WORKSPACE_PREPARING, EventKind.WORKSPACE_PROGRESSED}
_TITLES = ("Requested", "Queued", "Preparing", "Starting", "Waiting for Jupyter")
_BEGINS = {
    EventKind.WORKSPACE_REQUESTED: 0,
    EventKind.WORKSPACE_QUEUED: 1,
    EventKind.WORKSPACE_PREPARING: 2,
    EventKind.WORKSPACE_STARTING: 3,
    EventKind.WORKSPACE_READY: 5,
}
_PREPARING = 2
_PULLING = "Pulling image"
_FETCHING = ("Fetching ", _PULLING)
"""How a worker's message begins while an image is fetched, the longest of all that it prepares."""

_WAITING_FROM = 60
"""Progress from which on the process is there and only its first answer is waited for."""


def events_of_start(events: Iterable[Event], generation: int | None) -> list[Event]:
    """Those of the latest start."""
    latest: list[Event] = []
    for event in events:
        if event.kind is EventKind.WORKSPACE_REQUESTED:
            latest = []
        if generation is None or event.generation is None or event.generation == generation:
            latest.append(event)
    return latest


def as_told(record: WorkspaceRecord, events: Iterable[Event]) -> WorkspaceRecord:
    """The record with what its worker has said since: how far a start is, is told by events alone."""
    last = [
        event for event in events if event.kind is EventKind.WORKSPACE_PROGRESSED and event.at >= record.phase_since
    ]
    if not last or not record.phase.is_active or record.phase is Phase.READY:
        return record
    return record.model_copy(update={"message": last[-1].message, "progress": last[-1].progress or record.progress})


def steps_of(events: list[Event], record: WorkspaceRecord | None, *, position: int | None, now: datetime) -> list[Step]:
    """What is done, what goes on, what is to come."""
    began = _beginnings(events, record)
    reached = _reached(began, record)
    failed = record is not None and record.phase in (Phase.FAILED, Phase.STOPPED)
    ended = record.phase_since if record is not None and failed else now
    steps = []
    for index, title in enumerate(_TITLES):
        since = began.get(index)
        if index == 1 and since is None and reached > 1:
            continue
        state = _state(index, reached, failed=failed)
        until = min((when for later, when in began.items() if later > index), default=ended)
        took = duration(until - since) if since and state is not State.TODO else ""
        detail = _detail(index, record, position) if state is State.NOW else ""
        if index == _PREPARING and _has_pulled(events, record):
            title, detail = _PULLING, _without(detail, _FETCHING)
        steps.append(Step(title, state, since, took, detail))
    return steps


def _has_pulled(events: list[Event], record: WorkspaceRecord | None) -> bool:
    """Whether this start has had to fetch its image."""
    messages = [event.message for event in events if event.kind in _PROGRESS]
    return any(message.startswith(_FETCHING) for message in [*messages, record.message if record else ""])


def _without(text: str, beginnings: Iterable[str]) -> str:
    for beginning in beginnings:
        text = text.removeprefix(beginning)
    return text.strip()


def _beginnings(events: list[Event], record: WorkspaceRecord | None) -> dict[int, datetime]:
    began: dict[int, datetime] = {}
    for event in events:
        if (index := _BEGINS.get(event.kind)) is not None:
            began.setdefault(index, event.at)
        if event.progress is not None and event.progress >= _WAITING_FROM and 3 in began:
            began.setdefault(4, event.at)
    if record is not None:
        began.setdefault(0, record.requested_at)
    return began


def _reached(began: dict[int, datetime], record: WorkspaceRecord | None) -> int:
    reached = max(began, default=0)
    if record is None:
        return reached
    starting = 4 if record.progress >= _WAITING_FROM else 3
    by_phase = {Phase.QUEUED: 1, Phase.PREPARING: 2, Phase.STARTING: starting, Phase.READY: 5}
    return max(reached, by_phase.get(record.phase, 0))


def _state(index: int, reached: int, *, failed: bool) -> State:
    if index < reached:
        return State.DONE
    if index > reached:
        return State.TODO
    return State.FAILED if failed else State.NOW


def _detail(index: int, record: WorkspaceRecord | None, position: int | None) -> str:
    message = record.message if record is not None else ""
    if index == 1 and position:
        return f"{ordinal(position)} in line. {message}".strip()
    return message
