"""Refused logins become events, and whoever guesses does not fill the stream with them."""

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from mlhub_hub.auth.refusals import Refusals
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.subjects import NO_WORKSPACE
from tests.hub.conftest import Stage
from tests.hub.web import WebSession
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

MINUTE = timedelta(milliseconds=200)


def told(event: Event) -> tuple[str | None, object, object]:
    return event.user, event.detail["client"], event.detail["attempts"]


async def test_the_first_is_told_at_once_and_the_rest_together() -> None:
    events: list[Event] = []
    refusals = Refusals(events.append, together=MINUTE)
    for _ in range(500):
        refusals.note("alice", "192.0.2.1", how="password")
    refusals.note("alice", "192.0.2.2", how="password")
    assert [told(event) for event in events] == [("alice", "192.0.2.1", 1), ("alice", "192.0.2.2", 1)]
    await until(lambda: len(events) == 3)
    assert told(events[2]) == ("alice", "192.0.2.1", 499)
    refusals.note("alice", "192.0.2.1", how="password")
    assert told(events[3]) == ("alice", "192.0.2.1", 1)


async def test_any_number_of_addresses_costs_a_bounded_number_of_events() -> None:
    events: list[Event] = []
    refusals = Refusals(events.append, together=MINUTE)
    for number in range(5000):
        refusals.note(None, f"10.0.{number // 250}.{number % 250}", how="password")
    assert len(events) <= 1001
    await until(lambda: sum(int(str(event.detail["attempts"])) for event in events) == 5000)
    assert len(events) <= 1002


async def test_wrong_passwords_are_in_the_audit_stream_but_no_unknown_name_is(stage: Stage) -> None:
    since, web = datetime.now(UTC), WebSession(stage.hub.url, address="198.51.100.9")
    for name in ("admin", "admin", "my-secret-typed-into-the-wrong-field"):
        assert (await web.login(name, "not the password")).status_code == 403
    await web.close()
    seen: list[Event] = []
    async with asyncio.timeout(30), aclosing(stage.bus.replay(NO_WORKSPACE, since=since)) as replay:
        async for event in replay:
            assert "secret-typed" not in event.model_dump_json()
            assert "not the password" not in event.model_dump_json()
            if event.kind is EventKind.LOGIN_REFUSED:
                seen.append(event)
            if len(seen) == 2:
                break
    assert [told(event) for event in seen] == [("admin", "198.51.100.9", 1), (None, "198.51.100.9", 1)]
    assert {(event.detail["how"], event.detail["through"]) for event in seen} == {("password", "web")}
