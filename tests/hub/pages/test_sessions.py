"""The open SSH sessions: who sees which, who ends which, on the page and in the REST API."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from mlhub_shared.contracts.queries import END_SESSION, EndSession
from mlhub_shared.contracts.services import OpenSession
from mlhub_shared.errors import NotFound
from tests.hub.conftest import Stage
from tests.hub.pages.conftest import approved, now
from tests.hub.web import WebSession
from tests.support.hub_process import Api
from tests.support.makers import workspace
from tests.support.waiting import until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")

GATEWAY = "gateway1"


class Gateway:
    """Keeps the bucket as a gateway does, and ends what it is asked to."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.asked: list[EndSession] = []

    async def open(self, id: str, who: str, owner: str, server: str = "", **fields: object) -> OpenSession:
        values = {"client": "192.0.2.1", "method": "key", "fingerprint": "SHA256:abc", "opened_at": now()} | fields
        session = OpenSession.model_validate(
            {"id": id, "gateway": GATEWAY, "requester": who, "workspace": workspace(owner, server)} | values
        )
        await self.stage.bus.sessions.put(id, session, ttl=timedelta(minutes=5))
        return session

    async def end(self, query: EndSession) -> OpenSession:
        self.asked.append(query)
        entry = await self.stage.bus.sessions.get(query.id)
        if entry is None:
            raise NotFound("there is no such session")
        await self.stage.bus.sessions.delete(query.id)
        return entry.value


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(stage: Stage) -> Gateway:
    made = Gateway(stage)
    await stage.bus.answer(END_SESSION, EndSession, made.end, node=GATEWAY)
    return made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def people(stage: Stage, admin: WebSession, gateway: Gateway) -> AsyncIterator[dict[str, WebSession]]:
    """alice, whose workspace bob is in; carol, who has nothing to do with either."""
    names = ("alice", "bob", "carol")
    found = {name: await approved(stage, admin, name) for name in names}
    yield found | {"admin": admin}
    for name in names:
        await found[name].close()


async def fresh(stage: Stage, gateway: Gateway) -> None:
    """The same three sessions, whatever a test before has ended."""
    await gateway.open(
        "visit", "user:bob", "alice", "gpu1", client="198.51.100.7", bytes_in=1536, bytes_out=3 * 1024**2
    )
    await gateway.open("own", "user:alice", "alice", method="token", fingerprint=None)
    await gateway.open("robot", "service:automation", "carol")

    async def all_there() -> bool:
        return len(await stage.api("GET", "/ssh-sessions", expect=200)) == 3

    await until_async(all_there)


async def ids(api: Api) -> set[str]:
    return {session["id"] for session in await api("GET", "/ssh-sessions", expect=200)}


async def test_everybody_sees_his_own_and_who_is_in_his_workspaces_and_an_admin_all(
    stage: Stage, gateway: Gateway, people: dict[str, WebSession]
) -> None:
    await fresh(stage, gateway)
    expected = {"alice": {"visit", "own"}, "bob": {"visit"}, "carol": {"robot"}, "admin": {"visit", "own", "robot"}}
    for name, theirs in expected.items():
        page = (await people[name].get("sessions")).text
        assert {found for found in ("visit", "own", "robot") if f'id="session-{found}"' in page} == theirs, name
        if name != "admin":
            assert await ids(await stage.token_of(name)) == theirs, name
    assert await ids(stage.api) == expected["admin"]
    page = (await people["alice"].get("sessions")).text
    for shown in ("198.51.100.7", "1.5 KiB / 3.0 MiB", "an API token", "SHA256:abc", "gpu1"):
        assert shown in page
    [visit] = [found for found in await stage.api("GET", "/ssh-sessions") if found["id"] == "visit"]
    assert (visit["requester"], visit["user"], visit["server"], visit["client"], visit["bytes_in"]) == (
        "user:bob",
        "alice",
        "gpu1",
        "198.51.100.7",
        1536,
    )


async def test_he_who_is_in_and_he_who_is_visited_and_an_admin_end_a_session_and_nobody_else(
    stage: Stage, gateway: Gateway, people: dict[str, WebSession]
) -> None:
    for name in ("alice", "bob", "admin"):
        await fresh(stage, gateway)
        gateway.asked.clear()
        answer = await people[name].post("sessions", session="visit")
        assert answer.status_code == 302
        [asked] = gateway.asked
        assert (asked.id, asked.requester) == ("visit", f"user:{name}")
        assert 'id="session-visit"' not in (await people[name].get("sessions")).text
    await fresh(stage, gateway)
    gateway.asked.clear()
    token = await stage.token_of("carol")
    assert (await people["carol"].post("sessions", session="visit")).status_code == 404
    assert await token.status("DELETE", "/ssh-sessions/visit") == 404
    assert await token.status("DELETE", "/ssh-sessions/none") == 404
    # Without the token of a form.
    assert (await people["alice"].http.post("/hub/sessions", data={"session": "visit"})).status_code == 403
    assert not gateway.asked
    assert await (await stage.token_of("bob")).status("DELETE", "/ssh-sessions/visit") == 204
    assert await stage.api.status("DELETE", "/ssh-sessions/own") == 204
    assert [asked.requester for asked in gateway.asked] == ["user:bob", "service:automation"]


async def test_a_token_of_narrow_scopes_sees_and_ends_no_more_than_they_say(
    stage: Stage, gateway: Gateway, people: dict[str, WebSession]
) -> None:
    await fresh(stage, gateway)

    async def narrow(*scopes: str) -> Api:
        answer = await stage.api("POST", "/users/alice/tokens", {"scopes": list(scopes)}, expect=201)
        return Api(stage.hub, answer["token"])

    none, reads = await narrow("read:users:name!user"), await narrow("read:servers!user")
    assert await none.status("GET", "/ssh-sessions") == 403
    assert await ids(reads) == {"visit", "own"}
    assert await reads.status("DELETE", "/ssh-sessions/visit") == 403
    both = await narrow("read:servers!user", "delete:servers!user")
    assert await both.status("DELETE", "/ssh-sessions/visit") == 204


async def test_what_has_ended_or_whose_gateway_is_gone_is_said(
    stage: Stage, gateway: Gateway, people: dict[str, WebSession]
) -> None:
    await fresh(stage, gateway)
    await stage.bus.sessions.delete("visit")
    assert await stage.api.status("DELETE", "/ssh-sessions/visit") == 404
    await gateway.open("lost", "user:alice", "alice", gateway="nobody")

    async def is_there() -> bool:
        return "lost" in await ids(stage.api)

    await until_async(is_there)
    refusal = await stage.api("DELETE", "/ssh-sessions/lost", expect=503)
    assert "does not answer" in refusal["message"]
    await stage.bus.sessions.delete("lost")


async def test_the_page_follows_who_comes_and_goes(
    stage: Stage, gateway: Gateway, people: dict[str, WebSession]
) -> None:
    await fresh(stage, gateway)
    async with asyncio.timeout(30), people["bob"].http.stream("GET", "/hub/mlhub/sessions") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.aiter_lines()

        async def update() -> str:
            async for line in lines:
                if line.startswith("data: "):
                    return line
            raise AssertionError("the stream has ended")

        assert "session-visit" in (first := await update())
        assert "session-own" not in first
        await gateway.open("more", "user:bob", "bob", client="203.0.113.5")
        assert "203.0.113.5" in await update()
        await stage.bus.sessions.delete("more")
        assert "203.0.113.5" not in await update()
