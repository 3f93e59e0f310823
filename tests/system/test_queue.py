"""A full house: room for two, five who want in."""

from collections.abc import Iterator
from functools import partial

import pytest

from mlhub_shared.contracts.workspace import Phase, queue_positions
from tests.support.stack import HUB, Stack, wait_until

pytestmark = pytest.mark.timeout(180)

USERS = ("ann", "ben", "cat", "dan", "eve")


@pytest.fixture
def crowd(quick_stack: Stack) -> Iterator[Stack]:
    """Five spawns one after the other; two of them run."""
    stack = quick_stack
    for user in USERS:
        stack.hub.add_user(user)
        assert stack.hub.spawn(user).status_code in {201, 202}
        wait_until(partial(_has_record, stack, f"ws-{user}-{HUB}"), within=15)
    wait_until(lambda: stack.hub.is_ready("ann") and stack.hub.is_ready("ben"), within=30)
    yield stack
    for user in USERS:
        stack.hub.stop(user)
    wait_until(lambda: all(stack.hub.is_gone(user) for user in USERS), within=60, every=0.3)


def test_everybody_sees_his_place_in_line(crowd: Stack) -> None:
    assert places(crowd) == {"cat": 1, "dan": 2, "eve": 3}
    for place, user in enumerate(("cat", "dan", "eve"), start=1):
        message = next(message for message in crowd.hub.progress(user) if "position" in message)
        assert message["position"] == place
        assert "2 places are taken" in message["message"]
        page = crowd.session().get(f"/hub/spawn-pending/{user}")
        assert page.status_code == 200
        assert ("1st", "2nd", "3rd")[place - 1] in page.text


def test_stopping_a_running_one_starts_the_next(crowd: Stack) -> None:
    crowd.hub.stop("ben")
    wait_until(lambda: crowd.hub.is_ready("cat"), within=30)
    assert places(crowd) == {"dan": 1, "eve": 2}
    assert len(crowd.workspace_processes()) == 2


def test_leaving_the_line_moves_the_others_up(crowd: Stack) -> None:
    crowd.hub.stop("dan")
    wait_until(lambda: places(crowd) == {"cat": 1, "eve": 2}, within=15)
    wait_until(lambda: crowd.hub.is_gone("dan"), within=15)


@pytest.mark.chaos
def test_the_order_survives_the_death_of_everything_that_keeps_it(crowd: Stack) -> None:
    runners = crowd.workspace_processes()
    for component in ("hub", "spawner-worker", "nats"):
        crowd.kill(component)
    crowd.wait_well(within=60)
    wait_until(lambda: places(crowd) == {"cat": 1, "dan": 2, "eve": 3}, within=20)
    assert set(crowd.workspace_processes()) == set(runners)
    for leaver, follower in (("ann", "cat"), ("ben", "dan"), ("cat", "eve")):
        crowd.hub.stop(leaver)
        wait_until(partial(crowd.hub.is_ready, follower), within=30)


def places(stack: Stack) -> dict[str, int]:
    """Place in line by user, as the records say."""
    records = [record for record in stack.bus.records().values() if record.phase is Phase.QUEUED]
    users = {record.name: record.workspace.user for record in records}
    return {users[name]: place for name, place in queue_positions(records).items()}


def _has_record(stack: Stack, name: str) -> bool:
    return name in stack.bus.records()
