"""The small parts of the authorisation of tools."""

import asyncio
import base64
import json
import time
from contextlib import nullcontext

import pytest
from pydantic import SecretStr, ValidationError

from mlhub_proxy.routes import SITES, of_record
from mlhub_proxy.settings import ProxySettings
from mlhub_proxy.tools.recent import Recent
from mlhub_proxy.tools.seals import Seals, Ticket
from mlhub_shared.contracts.workspace import Endpoint, Phase, WorkspaceSpec
from mlhub_shared.errors import Temporary
from tests.support.makers import record


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
    assert seals.session_of(session) == ("tok.en", "ws-alice-test")
    assert Seals(SecretStr("one")).session_of(session) == ("tok.en", "ws-alice-test")
    assert seals.session_of(session.replace("alice", "bob")) is None
    assert others.session_of(session) is None
    # A signed ticket is no session.
    assert seals.session_of(seals.ticket(Ticket(name="ws-alice-test", below=""))) is None


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


@pytest.mark.parametrize(
    ("domain", "public_url", "is_fine"),
    [
        ("", "", True),
        ("tools.example", "https://hub.example", True),
        ("tools.example", "http://127.0.0.1:8080/", True),
        ("tools.example", "", False),
        ("tools.example", "hub.example", False),
        ("Tools.example", "https://hub.example", False),
        ("tools.example\n  bind :1", "https://hub.example", False),
        (".tools", "https://hub.example", False),
    ],
)
def test_a_domain_of_tools_is_one_and_needs_the_hubs_address(domain: str, public_url: str, is_fine: bool) -> None:
    with nullcontext() if is_fine else pytest.raises(ValidationError):
        ProxySettings(tools_domain=domain, public_url=public_url)


@pytest.mark.parametrize("phase", Phase)
def test_only_ready_workspaces_have_sites_and_only_where_there_is_a_domain(phase: Phase) -> None:
    there = Endpoint(host="10.0.0.7", port=8888)
    own = record("a.b", phase=phase, endpoint=there, base_url="/user/a.b/", spec=WorkspaceSpec(own_tools=True))
    found = {key: value for (table, key), value in of_record(own, base="/", has_sites=True).items() if table == SITES}
    assert found == ({own.name: f"10.0.0.7|8888|{own.name}|1|0|any"} if phase is Phase.READY else {})
    assert not any(table == SITES for table, _ in of_record(own, base="/"))
