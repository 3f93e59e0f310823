"""The steps of a start."""

from datetime import timedelta

import pytest

from mlhub_hub.pages.steps import State, Step, as_told, events_of_start, steps_of
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord
from tests.support.makers import NOW, record, workspace

_ALL = [
    EventKind.WORKSPACE_REQUESTED,
    EventKind.WORKSPACE_QUEUED,
    EventKind.WORKSPACE_PREPARING,
    EventKind.WORKSPACE_STARTING,
]


def event(kind: EventKind, seconds: int, **fields: int) -> Event:
    at = NOW + timedelta(seconds=seconds)
    return Event(kind=kind, workspace=workspace(), requester="user:alice", at=at, generation=1, **fields)


def steps(
    events: list[Event], known: WorkspaceRecord | None, *, seconds: int = 60, position: int | None = None
) -> list[Step]:
    return steps_of(events, known, position=position, now=NOW + timedelta(seconds=seconds))


def test_what_is_done_shows_how_long_it_took_and_what_goes_on_since_when() -> None:
    events = [event(kind, 10 * index) for index, kind in enumerate(_ALL)]
    shown = steps(events, record(phase=Phase.STARTING, message="Creating the process"), seconds=75)
    assert [(step.title, step.state, step.took) for step in shown] == [
        ("Requested", State.DONE, "10 s"),
        ("Queued", State.DONE, "10 s"),
        ("Preparing", State.DONE, "10 s"),
        ("Starting", State.NOW, "45 s"),
        ("Waiting for Jupyter", State.TODO, ""),
    ]
    assert shown[3].since == NOW + timedelta(seconds=30)
    assert shown[3].detail == "Creating the process"


def test_the_queue_shows_the_place_in_line() -> None:
    events = [event(kind, 0) for kind in _ALL[:2]]
    [queued] = [s for s in steps(events, record(phase=Phase.QUEUED), position=3) if s.state is State.NOW]
    assert (queued.title, queued.detail) == ("Queued", "3rd in line.")


def test_who_never_waited_sees_no_queue() -> None:
    events = [event(_ALL[0], 0), event(_ALL[2], 1)]
    assert "Queued" not in [step.title for step in steps(events, record(phase=Phase.PREPARING))]


def test_a_failure_marks_the_step_it_came_in() -> None:
    events = [event(kind, index) for index, kind in enumerate(_ALL)]
    shown = steps(events, record(phase=Phase.FAILED))
    assert [step.state for step in shown] == [State.DONE, State.DONE, State.DONE, State.FAILED, State.TODO]


def test_without_any_event_the_record_is_enough() -> None:
    shown = steps([], record(phase=Phase.STARTING, progress=80))
    assert [(step.title, step.state) for step in shown] == [
        ("Requested", State.DONE),
        ("Preparing", State.DONE),
        ("Starting", State.DONE),
        ("Waiting for Jupyter", State.NOW),
    ]
    assert steps([], None)[0].state is State.NOW


def test_events_of_an_earlier_start_are_left_out() -> None:
    earlier = [event(kind, index) for index, kind in enumerate(_ALL)]
    latest = [event(kind, 100 + index).model_copy(update={"generation": 2}) for index, kind in enumerate(_ALL[:2])]
    assert events_of_start(earlier + latest, 2) == latest
    assert events_of_start(earlier + latest, None) == latest


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        ("Pulling image 340 of 1,200 MB", "340 of 1,200 MB"),
        ("Fetching lab:1: 3 of 7 layers, 340 of 1200 MB", "lab:1: 3 of 7 layers, 340 of 1200 MB"),
    ],
)
def test_an_image_that_is_fetched_is_a_step_of_its_own(message: str, detail: str) -> None:
    events = [event(kind, 10 * index) for index, kind in enumerate(_ALL[:3])]
    pulling = steps(events, record(phase=Phase.PREPARING, message=message))[2]
    assert (pulling.title, pulling.detail, pulling.state) == ("Pulling image", detail, State.NOW)
    pulled = Event(
        kind=EventKind.WORKSPACE_PROGRESSED, workspace=workspace(), requester="x", generation=1, message=message
    )
    later = steps([*events, pulled, event(EventKind.WORKSPACE_STARTING, 50)], record(phase=Phase.STARTING))[2]
    assert (later.title, later.detail, later.state) == ("Pulling image", "", State.DONE)


def test_what_the_worker_says_since_the_record_is_shown() -> None:
    preparing = record(phase=Phase.PREPARING, message="Preparing", progress=10)
    said = [
        Event(kind=EventKind.WORKSPACE_PROGRESSED, workspace=workspace(), requester="x", at=at, generation=1, **fields)
        for at, fields in (
            (NOW - timedelta(seconds=1), {"message": "of an earlier phase", "progress": 50}),
            (NOW + timedelta(seconds=1), {"message": "Fetching lab:1", "progress": 20}),
        )
    ]
    told = as_told(preparing, said)
    assert (told.message, told.progress) == ("Fetching lab:1", 20)
    assert as_told(preparing, said[:1]) == preparing
    assert as_told(record(phase=Phase.READY), said).message == ""
