"""`docker compose kill` of any one service, and crashes of all, during ten spawns."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.compose import SERVICES, ComposeStack, wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(420)]

WORKSPACES = [(f"user{number}", server) for number in range(5) for server in ("", "second")]
"""Ten: every user's network is there for the second one, and being made for the first."""

SETTLED_WITHIN = 150.0
"""Seconds after the last service has come back, while other tests keep both cores busy."""


@pytest.fixture(autouse=True)
def _people(compose_stack: ComposeStack) -> None:
    for user in {user for user, _ in WORKSPACES}:
        compose_stack.hub.add_user(user)


@pytest.mark.parametrize("victim", SERVICES)
def test_a_service_that_is_killed_during_ten_spawns_loses_and_doubles_none(
    compose_stack: ComposeStack, victim: str
) -> None:
    with ThreadPoolExecutor(len(WORKSPACES) + 1) as pool:
        asking = [pool.submit(ask_for, compose_stack, *workspace) for workspace in WORKSPACES]
        if victim in {"hub", "proxy", "nats"}:
            # Who asks goes through these three: the wish has to arrive before they die.
            [asked.result() for asked in asking]
        else:
            asking[0].result()
        compose_stack.kill(victim)
        compose_stack.up()
        [asked.result() for asked in asking]
    settled(compose_stack)


def test_services_that_crash_come_back_by_themselves(compose_stack: ComposeStack) -> None:
    with ThreadPoolExecutor(len(WORKSPACES)) as pool:
        asking = [pool.submit(ask_for, compose_stack, *workspace) for workspace in WORKSPACES]
        for service in ("spawner-worker", "proxy", "hub"):
            compose_stack.crash(service)
        [asked.result() for asked in asking]
    wait_until(lambda: set(compose_stack.health().values()) == {"healthy"}, within=SETTLED_WITHIN, every=0.5)
    settled(compose_stack)


def ask_for(stack: ComposeStack, user: str, server: str) -> None:
    """A workspace, asked for until the hub has heard it."""
    answer = stack.hub.spawn(user, server, user_options={"profile": "quick"})
    assert answer.status_code in {201, 202, 400}, answer.text  # 400: an answer that was lost said yes


def settled(stack: ComposeStack) -> None:
    """Every workspace is as it was last asked for, once; then all are stopped, and nothing runs."""
    for user, server in WORKSPACES:
        wait_until(lambda: stack.hub.is_ready(user, server), within=SETTLED_WITHIN)  # noqa: B023
    assert len(stack.labelled("container")) == len(WORKSPACES)
    for user, server in WORKSPACES:
        assert stack.workspace(user, server)["State"]["Running"] is True
        assert stack.hub.workspace("GET", user, "api", server).status_code == 200
    with ThreadPoolExecutor(len(WORKSPACES)) as pool:
        stopped = [pool.submit(stack.hub.stop, *workspace) for workspace in WORKSPACES]
        assert {answer.result().status_code for answer in stopped} <= {202, 204}
    wait_until(lambda: not stack.labelled("container"), within=SETTLED_WITHIN)
