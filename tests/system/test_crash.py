"""Kill -9 of one part, two seconds after a spawn was asked for."""

import time
from datetime import timedelta
from functools import partial

import pytest

from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.workspace import Phase
from tests.support.stack import HUB, Stack, wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]

DELAY = 4.0
"""Seconds that the workspace takes to start: it is on its way when the kill comes."""


@pytest.mark.parametrize("victim", ["hub", "spawner-worker", "nats", "proxy", "haproxy"])
def test_the_same_spawn_becomes_ready_once(quick_stack: Stack, victim: str) -> None:
    stack, user = quick_stack, f"victim-{victim.replace('spawner-', '')}"
    stack.hub.add_user(user)
    assert stack.hub.spawn(user, env={"FAKE_DELAY": str(DELAY)}).status_code in {201, 202}
    time.sleep(2)
    (record,) = [record for record in stack.bus.records().values() if record.workspace.user == user]
    (process,) = stack.workspace_processes(record.name)
    assert record.phase is Phase.STARTING
    stack.kill_and_wait(victim)
    wait_until(lambda: stack.hub.is_ready(user), within=30)
    after = stack.bus.record(record.name)
    assert after is not None
    assert (after.phase, after.generation) == (Phase.READY, record.generation)
    assert stack.workspace_processes(record.name) == [process]
    ready = [event for event in stack.bus.events(record.name) if event.kind is EventKind.WORKSPACE_READY]
    assert len(ready) == 1
    assert stack.hub.workspace("GET", user, "api").text == str(process.pid)
    stack.hub.stop(user)
    wait_until(lambda: stack.hub.is_gone(user) and not process.is_alive, within=30)


def test_an_answered_request_outlives_the_hub(quick_stack: Stack) -> None:
    """Killed the moment it has answered: what was promised is on the bus by then."""
    stack = quick_stack
    for user in ("early", "bird"):
        stack.hub.add_user(user)
        assert stack.hub.request("POST", f"/users/{user}/server", json={}).status_code in {201, 202}
        stack.kill_and_wait("hub")
        wait_until(partial(stack.hub.is_ready, user), within=30)
    for user in ("early", "bird"):
        stack.hub.stop(user)
        wait_until(partial(stack.hub.is_gone, user), within=30)


def test_the_hub_is_missed_by_nobody_who_is_in(quick_stack: Stack) -> None:
    """Open workspaces are reached, and expire, with the hub dead."""
    stack, user = quick_stack, "insider"
    stack.hub.add_user(user)
    stack.hub.spawn(user, days_to_live=timedelta(seconds=8) / timedelta(days=1))
    wait_until(lambda: stack.hub.is_ready(user), within=30)
    stack.freeze("hub")
    try:
        assert stack.hub.workspace("GET", user, "api").status_code == 200
        wait_until(lambda: not stack.workspace_processes(f"ws-{user}-{HUB}"), within=20)
    finally:
        stack.thaw("hub")
    wait_until(lambda: stack.hub.is_gone(user), within=20)
