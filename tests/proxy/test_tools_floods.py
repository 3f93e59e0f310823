"""Strangers in numbers: they hold up each other, and nobody who has been let in."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from pydantic import SecretStr

from mlhub_proxy.tools.hub import Credential, Hub
from mlhub_shared.errors import Temporary
from mlhub_shared.tasks import end_tasks
from tests.proxy.toolhouse import TOOL, House, running_house
from tests.support.waiting import until

FEW, WAITING, MOST_REFUSED = 4, 200, 300


class Stuck:
    """Answers in the hub's place: of a stranger's token not before it may."""

    def __init__(self) -> None:
        self.strangers = 0
        self.may_answer = asyncio.Event()

    async def user(self, request: web.Request) -> web.Response:
        if "good" in request.headers["Authorization"]:
            return web.json_response({"name": "alice", "scopes": []})
        self.strangers += 1
        await self.may_answer.wait()
        return web.Response(status=403)

    async def token(self, _: web.Request) -> web.Response:
        return web.json_response({"access_token": "good"})


@asynccontextmanager
async def stuck() -> AsyncIterator[tuple[Stuck, Hub]]:
    answers, app = Stuck(), web.Application()
    app.router.add_get("/user", answers.user)
    app.router.add_post("/oauth2/token", answers.token)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hub = Hub(f"http://127.0.0.1:{runner.addresses[0][1]}", SecretStr("secret"), "/back")
    try:
        yield answers, hub
    finally:
        answers.may_answer.set()
        await hub.close()
        await runner.cleanup()


async def seconds(asking: Awaitable[object]) -> float:
    began = time.monotonic()
    assert await asking
    return time.monotonic() - began


async def test_strangers_tokens_wait_for_each_other_and_for_nobody_else_do_others_wait() -> None:
    async with stuck() as (answers, hub):
        assert await hub.whose(Credential("good-of-before"))
        flood = [asyncio.ensure_future(hub.whose(Credential(f"bad{i}"))) for i in range(FEW + WAITING)]
        try:
            await until(lambda: answers.strangers == FEW)
            with pytest.raises(Temporary, match="too many"):
                await hub.whose(Credential("good-but-new"))
            assert await seconds(hub.whose(Credential("good", is_sealed=True))) < 1
            assert await seconds(hub.whose(Credential("good-of-before"))) < 1
            assert await seconds(hub.token_for("code", "verifier")) < 1
            assert answers.strangers == FEW
            answers.may_answer.set()
            assert set(await asyncio.gather(*flood)) == {None}
            assert await hub.whose(Credential("good-but-new"))
        finally:
            await end_tasks(*flood)


async def test_who_waits_for_a_turn_waits_no_longer_than_for_an_answer() -> None:
    async with stuck() as (_, hub):
        began = time.monotonic()
        asking = (hub.whose(Credential(f"bad{i}")) for i in range(FEW * 3))
        ends = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(end) for end in ends} == {Temporary}
        assert time.monotonic() - began < 5


@pytest.fixture
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running_house(tmp_path_factory.mktemp("house"), TRUSTED_PROXIES="127.0.0.0/8", THREADS="1") as made:
        yield made


async def test_an_address_of_many_strangers_is_refused_before_anybody_is_asked(house: House) -> None:
    prefix = await house.open("owner", "lab")
    path, token = f"{prefix}tools/{TOOL}/", await house.token("owner")
    flooding, other = {"X-Forwarded-For": "6.6.6.6"}, {"X-Forwarded-For": "7.7.7.7"}
    assert (await house.ask(path, token, **flooding)).status == 200
    found: list[int] = []
    async with asyncio.timeout(30):
        while 429 not in found:
            answers = await asyncio.gather(*(house.ask(path, **flooding) for _ in range(50)))
            found += [answer.status for answer in answers]
    assert set(found) == {401, 429}
    assert found.count(401) >= MOST_REFUSED
    refused = await house.ask(path, "0" * 32, **flooding)
    assert (refused.status, refused.headers["retry-after"]) == (429, "10")
    # Who was let in before goes on from there, also when the word for it is too old; and so do all others.
    await asyncio.sleep(5)
    assert (await house.ask(path, token, **flooding)).status == 200
    assert (await house.ask(path, **other)).status == 401
    assert (await house.ask("/hub/login", **flooding)).status == 200
