"""What strangers and broken programs send must cost nobody anything."""

from typing import Any

import pytest

from mlhub_shared.bus import Bus
from tests.support.stack import HUB, Stack, wait_until

pytestmark = pytest.mark.timeout(120)

GARBAGE = [
    b"",
    b"\0",
    b"{}",
    b"[]",
    b"{" * 1000,
    b'{"kind": "spawn"}',
    b"\xff\xfe",
    b'{"kind": "reboot", "workspace": 7}',
]


def test_garbage_on_every_subject_stops_nothing(quick_stack: Stack) -> None:
    stack = quick_stack

    async def shout(bus: Bus) -> None:
        names = bus.subjects
        subjects = [
            names.command("default", "ws-nobody-test"),
            names.command("default", "ws-nobody-test", "local"),
            names.event("workspace-ready", "ws-nobody-test"),
            names.event("user-deleted"),
            names.due("expire", "ws-nobody-test"),
            names.due("warn", "ws-nobody-test"),
            *(f"$KV.{HUB}_{bucket}.garbage" for bucket in ("workspaces", "routes", "ssh-keys", "secrets")),
        ]
        for subject in subjects:
            for data in GARBAGE:
                await bus.connection.publish(subject, data)

    before = restarts(stack)
    stack.bus.ask(shout)
    stack.hub.add_user("grace")
    stack.hub.spawn("grace")
    wait_until(lambda: stack.hub.is_ready("grace"), within=30)
    assert stack.hub.workspace("GET", "grace", "api").status_code == 200
    stack.hub.stop("grace")
    wait_until(lambda: stack.hub.is_gone("grace"), within=20)
    assert stack.run("status").returncode == 0
    assert restarts(stack) == before


def restarts(stack: Stack) -> dict[str, int]:
    return {part["name"]: part["restarts"] for part in stack.status()["parts"]}


@pytest.mark.parametrize(
    "options",
    [
        {"env": {"X": "x" * 1_000_000}},
        {"env": {"JUPYTERHUB_API_TOKEN": "mine"}},
        {"env": {"A=B": "c"}},
        {"cpu_limit": -1},
        {"mem_limit": "many"},
        {"image": "evil/image"},
        {"days_to_live": "tomorrow"},
        {"no_such_option": 1},
        {"env": ["not", "an", "object"]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_that_nobody_may_have_are_refused_with_a_sentence(quick_stack: Stack, options: dict[str, Any]) -> None:
    quick_stack.hub.add_user("grace")
    answer = quick_stack.hub.spawn("grace", **options)
    assert answer.status_code == 400
    assert answer.json()["message"]
    assert quick_stack.hub.is_gone("grace")


@pytest.mark.parametrize("server", ["..", "a/b", "%2e%2e", "A B", "-", "x" * 300, "gpu--1", "üñï"])
def test_names_that_can_not_be_are_refused(quick_stack: Stack, server: str) -> None:
    quick_stack.hub.add_user("grace")
    answer = quick_stack.hub.spawn("grace", server)
    assert 400 <= answer.status_code < 500
    assert not [name for name in quick_stack.bus.records() if name.startswith(f"ws-grace-{HUB}-")]
