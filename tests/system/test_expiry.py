"""A workspace that lives a few seconds."""

from datetime import timedelta

import pytest

from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.workspace import Phase, Reason
from tests.support.stack import HUB, Stack, wait_until

pytestmark = pytest.mark.timeout(120)

LIFETIME = timedelta(seconds=4)


@pytest.fixture(scope="module")
def expired(quick_stack: Stack) -> str:
    """A workspace that has lived its life, by name."""
    stack, name = quick_stack, f"ws-alice-{HUB}"
    stack.hub.add_user("alice")
    answer = stack.hub.spawn("alice", days_to_live=LIFETIME / timedelta(days=1))
    assert answer.status_code in {201, 202}, answer.text
    wait_until(lambda: stack.hub.is_ready("alice"), within=30)
    wait_until(lambda: _phase(stack, name) is Phase.STOPPED, within=LIFETIME.total_seconds() + 15)
    return name


def test_it_is_stopped_within_a_second_of_its_time(quick_stack: Stack, expired: str) -> None:
    events = {event.kind: event for event in quick_stack.bus.events(expired)}
    ready, stopping = events[EventKind.WORKSPACE_READY], events[EventKind.WORKSPACE_STOPPING]
    late = stopping.at - ready.at - LIFETIME
    assert timedelta(seconds=-0.05) <= late <= timedelta(seconds=3)


def test_nothing_of_it_runs_any_more_and_the_reason_is_kept(quick_stack: Stack, expired: str) -> None:
    record = quick_stack.bus.record(expired)
    assert record is not None
    assert record.reason is Reason.EXPIRED
    assert quick_stack.workspace_processes(expired) == []
    wait_until(lambda: quick_stack.hub.is_gone("alice"), within=10)


def test_the_page_says_so(quick_stack: Stack, expired: str) -> None:
    page = quick_stack.session().get("/hub/home", params={"user": "alice"})
    assert page.status_code == 200
    assert "its time was over" in page.text


def test_it_can_be_started_again_and_lives_anew(quick_stack: Stack, expired: str) -> None:
    quick_stack.hub.spawn("alice", days_to_live=0)
    wait_until(lambda: quick_stack.hub.is_ready("alice"), within=30)
    record = quick_stack.bus.record(expired)
    assert record is not None
    assert record.expires_at is None
    quick_stack.hub.stop("alice")
    wait_until(lambda: quick_stack.hub.is_gone("alice"), within=20)


def _phase(stack: Stack, name: str) -> Phase | None:
    record = stack.bus.record(name)
    return record.phase if record else None
