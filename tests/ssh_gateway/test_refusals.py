"""What is told of those who are refused, and how much of it."""

from typing import Any

import asyncssh
import pytest

from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.workspace import Endpoint
from mlhub_ssh_gateway.lockout import Lockout
from mlhub_ssh_gateway.refusals import Refusals
from tests.ssh_gateway.place import Place
from tests.support.hub_api import ScriptedHub
from tests.support.makers import workspace

DENIED, REFUSED = EventKind.ACCESS_DENIED, EventKind.LOGIN_REFUSED


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_first_is_told_at_once_and_the_rest_as_a_sum() -> None:
    clock, told = Clock(), list[Event]()
    refusals = Refusals(told.append, clock)
    for _ in range(10_000):
        refusals.login_refused("203.0.113.5", None, "token")
    refusals.login_refused("203.0.113.6", None, "key")
    assert [event.detail["attempts"] for event in told] == [1, 1]
    refusals.tell_due()
    assert len(told) == 2
    clock.now += 61
    refusals.tell_due()
    assert [event.detail["attempts"] for event in told] == [1, 1, 9999]
    assert told[2].detail["client"] == "203.0.113.5"
    assert told[2].id != told[0].id
    clock.now += 61
    refusals.tell_due()
    refusals.login_refused("203.0.113.5", None, "token")
    assert len(told) == 4


def test_many_addresses_are_told_as_one() -> None:
    clock, told = Clock(), list[Event]()
    refusals = Refusals(told.append, clock)
    for number in range(50_000):
        refusals.login_refused(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", None, "key")
    assert len(told) <= 1001
    refusals.flush()
    assert sum(int(event.detail["attempts"] or 0) for event in told) == 50_000
    assert len(told) <= 1002


def test_each_way_of_trying_to_enter_is_told_at_once() -> None:
    told = list[Event]()
    refusals = Refusals(told.append, Clock())
    for method in ("key", "token", "workspace-key") * 2:
        refusals.denied("user:bob", workspace("alice"), "203.0.113.5", method, None)
    assert [event.detail["method"] for event in told] == ["key", "token", "workspace-key"]


def test_tokens_are_locked_by_name_and_address_and_never_for_others() -> None:
    clock = Clock()
    lockout = Lockout(3, clock)
    for _ in range(3):
        assert not lockout.is_locked("alice", "203.0.113.5")
        lockout.failed("alice", "203.0.113.5")
    assert lockout.is_locked("alice", "203.0.113.5")
    assert not lockout.is_locked("alice", "203.0.113.6")
    assert not lockout.is_locked("bob", "203.0.113.5")
    clock.now += 31
    assert not lockout.is_locked("alice", "203.0.113.5")
    lockout.failed("alice", "203.0.113.5")
    clock.now += 31
    assert lockout.is_locked("alice", "203.0.113.5")  # it doubles
    clock.now += 30
    lockout.succeeded("alice", "203.0.113.5")
    lockout.failed("alice", "203.0.113.5")
    assert not lockout.is_locked("alice", "203.0.113.5")


def test_an_address_that_tries_many_names_is_locked_for_all_and_forgotten_at_last() -> None:
    clock = Clock()
    lockout = Lockout(3, clock)
    for number in range(15):
        assert not lockout.is_locked("alice", "2001:db8::1")
        lockout.failed(f"user{number}", "2001:db8::1")
    assert lockout.is_locked("alice", "2001:db8::2")
    assert not lockout.is_locked("alice", "2001:db8:0:1::1")
    clock.now += 7 * 3600
    lockout.failed("alice", "2001:db8::1")
    assert not lockout.is_locked("alice", "2001:db8::1")


def test_people_behind_one_address_who_mistype_now_and_then_lock_nobody_out() -> None:
    clock = Clock()
    lockout = Lockout(3, clock)
    for number in range(75):
        clock.now += 60
        lockout.failed(f"user{number % 25}", "203.0.113.5")
        lockout.succeeded(f"user{number % 25}", "203.0.113.5")
    for number in range(75):
        clock.now += 180
        lockout.failed(f"other{number}", "203.0.113.5")
    assert not lockout.is_locked("alice", "203.0.113.5")


def test_who_guesses_on_locks_his_address_for_two_minutes_at_a_time() -> None:
    clock = Clock()
    lockout = Lockout(3, clock)
    for number in range(1000):
        lockout.failed(f"user{number}", "203.0.113.5")
    clock.now += 119
    assert lockout.is_locked("alice", "203.0.113.5")
    clock.now += 2
    assert not lockout.is_locked("alice", "203.0.113.5")
    clock.now += 480
    lockout.failed("alice", "203.0.113.5")
    assert not lockout.is_locked("bob", "203.0.113.5")


async def test_a_wrong_key_and_a_wrong_token_are_guesses(place: Place, hub: ScriptedHub) -> None:
    nobody = await place.client(None)
    assert (await nobody.run("alice", "true")).status == 255
    assert not await enters(place, "a-guess", local_addr=("127.0.0.2", 0))
    key, token = await place.events(REFUSED, 2)
    assert (key.requester, key.workspace) == ("service:ssh-gateway", workspace("alice"))
    assert key.detail == {"client": "127.0.0.1", "through": "ssh", "how": "key", "attempts": 1}
    assert token.detail == {"client": "127.0.0.2", "through": "ssh", "how": "token", "attempts": 1}


async def test_names_that_strangers_type_are_told_nowhere(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    nobody = await place.client(None)
    assert (await nobody.run("my-secret-password", "true")).status == 255
    (event,) = await place.events(REFUSED)
    assert event.workspace is None
    assert b"my-secret" not in event.encode()
    assert "my-secret" not in "".join(capfd.readouterr())


async def test_a_proved_key_of_somebody_else_is_a_denial_and_an_offer_is_nothing(place: Place) -> None:
    bob, alice = await place.client("bob"), await place.client("alice")
    (place.folder / "bob.pub").write_text(bob.public_line)
    offered = ("-o", f"IdentityFile={place.folder / 'bob.pub'}")
    assert (await alice.run("alice", "echo in", options=offered)).stdout == b"in\n"
    assert (await bob.run("alice", "echo in")).status == 255
    (event,) = await place.events(DENIED)
    assert (event.requester, event.workspace) == ("user:bob", workspace("alice"))
    assert event.detail == {
        "client": "127.0.0.1",
        "through": "ssh",
        "method": "key",
        "fingerprint": bob.key.get_fingerprint(),
        "attempts": 1,
    }
    assert await place.count(REFUSED) == 0


async def test_a_token_of_somebody_else_is_a_denial_and_locks_nobody_out(place: Place, hub: ScriptedHub) -> None:
    hub.add_token("of-bob", "bob", "access:servers!user=bob")
    hub.add_token("of-alice", "alice", "access:servers!user=alice")
    for _ in range(12):
        assert not await enters(place, "of-bob")
    (event,) = await place.events(DENIED)
    assert (event.requester, event.workspace) == ("user:bob", workspace("alice"))
    assert await enters(place, "of-alice")


async def test_wrong_tokens_lock_the_right_one_out_but_no_key_and_no_other_address(
    quiet_place: Place, hub: ScriptedHub
) -> None:
    place = quiet_place
    await place.put("alice")
    hub.add_token("of-alice", "alice", "access:servers!user=alice")
    async with place.gateway(max_failures=3):
        for _ in range(3):
            assert not await enters(place, "a-guess")
        asked = len(hub.asked)
        assert not await enters(place, "of-alice")
        assert len(hub.asked) == asked
        assert await enters(place, "of-alice", local_addr=("127.0.0.2", 0))
        assert (await (await place.client("alice")).run("alice", "echo in")).stdout == b"in\n"


async def test_a_hub_that_is_away_makes_no_guesses(place: Place, hub: ScriptedHub) -> None:
    hub.is_down = True
    for _ in range(12):
        assert not await enters(place, "of-alice")
    hub.is_down = False
    hub.add_token("of-alice", "alice", "access:servers!user=alice")
    assert await enters(place, "of-alice")
    await place.events(EventKind.SESSION_OPENED)
    assert await place.count(REFUSED) == 0


async def test_a_forward_to_somebody_elses_workspace_is_a_denial(place: Place) -> None:
    await place.put("bob", endpoint=Endpoint(host="127.0.0.1", port=9))
    alice = await place.client("alice")
    ran = await alice.run("alice", options=("-W", f"{workspace('bob').name}:9"))
    assert (ran.status, ran.stdout) == (255, b"")
    (event,) = await place.events(DENIED)
    assert (event.requester, event.workspace) == ("user:alice", workspace("bob"))


async def enters(place: Place, token: str, **options: Any) -> bool:
    """Whether a token opens alice's workspace."""
    try:
        async with place.connect("alice", password=token, **options) as connection:
            return (await connection.run("echo in")).stdout == "in\n"
    except (OSError, asyncssh.Error):
        return False
