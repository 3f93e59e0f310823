"""The small parts of the authorisation of tools."""

import asyncio
import base64
import json
import time

import pytest
from pydantic import SecretStr

from mlhub_proxy.tools.recent import Recent
from mlhub_proxy.tools.seals import Seals, Ticket
from mlhub_shared.errors import Temporary


class Oracle:
    """Answers with what it is asked, as often as it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def ask(self, key: str) -> str:
        self.asked.append(key)
        await self.may_answer.wait()
        if key == "wrong":
            raise Temporary("not now")
        return key


async def test_those_who_ask_at_once_share_a_question_also_if_one_of_them_goes() -> None:
    oracle = Oracle()
    recent = Recent(oracle.ask, lambda _: 60, most=10)
    oracle.may_answer.clear()
    asking = [asyncio.ensure_future(recent.get("a")) for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.sleep(0)
    oracle.may_answer.set()
    assert [(await one).value for one in asking[1:]] == ["a", "a"]
    assert (await recent.get("a")).value == "a"
    assert oracle.asked == ["a"]


async def test_an_answer_holds_from_the_question_on_and_no_failure_is_kept() -> None:
    oracle = Oracle()
    recent = Recent(oracle.ask, lambda _: 0.05, most=10)
    oracle.may_answer.clear()
    asking = asyncio.ensure_future(recent.get("a"))
    await asyncio.sleep(0.06)
    oracle.may_answer.set()
    assert (await asking).until <= asyncio.get_running_loop().time()
    await recent.get("a")
    assert oracle.asked == ["a", "a"]
    for _ in range(2):
        with pytest.raises(Temporary):
            await recent.get("wrong")
    assert oracle.asked == ["a", "a", "wrong", "wrong"]


async def test_it_remembers_no_more_than_it_may() -> None:
    oracle = Oracle()
    recent = Recent(oracle.ask, lambda _: 60, most=2)
    for key in ("a", "b", "c"):
        await recent.get(key)
    await recent.get("c")
    await recent.get("a")
    assert oracle.asked == ["a", "b", "c", "a"]


def test_a_session_counts_for_its_workspace_and_its_deployment() -> None:
    seals, others = Seals(SecretStr("one")), Seals(SecretStr("another"))
    session = seals.session("tok.en", "ws-alice-test")
    assert seals.token_of(session, "ws-alice-test") == "tok.en"
    assert Seals(SecretStr("one")).token_of(session, "ws-alice-test") == "tok.en"
    assert seals.token_of(session, "ws-bob-test") is None
    assert others.token_of(session, "ws-alice-test") is None
    # A signed ticket is no session, and no part of a session can be moved into the other.
    assert seals.token_of(seals.ticket(Ticket(name="ws-alice-test", below="")), "ws-alice-test") is None
    assert seals.token_of(seals.session("en", "ws-alice-test|tok."), "ws-alice-test") is None


@pytest.mark.parametrize("spoilt", ["", ".", "x.y", "ä.ö"])
def test_only_a_fresh_ticket_of_ours_is_one(spoilt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seals = Seals(SecretStr("one"))
    ticket = seals.ticket(Ticket(name="ws-alice-test", below="tools/8050/?ä=1", browser="b"))
    found = seals.ticket_of(ticket)
    assert found is not None
    assert (found.name, found.below, found.browser) == ("ws-alice-test", "tools/8050/?ä=1", "b")
    assert seals.ticket_of(spoilt) is None
    forged = base64.urlsafe_b64encode(json.dumps(found.model_dump() | {"name": "ws-bob-test"}).encode()).decode()
    assert seals.ticket_of(f"{forged.rstrip('=')}.{ticket.partition('.')[2]}") is None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 601)
    assert seals.ticket_of(ticket) is None
