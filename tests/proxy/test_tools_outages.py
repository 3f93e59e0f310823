"""Tools while something is away: nobody gets in on the strength of an old word, and all comes back by itself."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mlhub_shared.contracts.workspace import Endpoint
from tests.proxy.toolhouse import STALE, TOOL, House, running_house
from tests.support.waiting import until_async


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with running_house(tmp_path) as made:
        yield made


async def test_without_the_hub_nobody_new_gets_in_and_nobody_stays_longer_than_five_seconds(house: House) -> None:
    prefix = await house.open("owner", "lab")
    path, token = f"{prefix}tools/{TOOL}/", await house.token("owner")
    async with house.browser() as browser:
        assert (await browser.visit(path)).status_code == 200
        assert (await house.ask(path, token)).status == 200
        await house.hub.kill()
        assert (await house.ask(path, "0" * 32)).status == 503
        await asyncio.sleep(STALE)
        for _ in range(3):
            answer = await house.ask(path, token)
            assert (answer.status, answer.headers["content-type"]) == (503, "application/json")
            page = await browser.visit(path)
            assert page.status_code == 503
            assert "The hub does not answer" in page.text
            assert (await browser.fetch(path, "POST")).status_code == 503
        # The workspace itself is nobody's to close.
        assert (await house.ask(prefix)).said["name"] == "workspace"
        await house.hub.start()

        async def is_back() -> bool:
            return (await house.ask(path, token)).status == 200

        await until_async(is_back)
        assert (await browser.visit(path)).status_code == 200


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_without_the_agent_tools_are_closed_and_workspaces_are_not(house: House, number: signal.Signals) -> None:
    prefix = await house.open("owner", "lab")
    path, token = f"{prefix}tools/{TOOL}/", await house.token("owner")
    own = await house.open("owner", "old", own=True)
    assert (await house.ask(path, token)).status == 200
    process = house.agent.process
    assert process is not None
    process.send_signal(number)
    try:
        await asyncio.sleep(STALE)
        for answer in await asyncio.gather(*(house.ask(closed, token) for closed in (path, f"{own}tools/vnc/"))):
            assert answer.status == 503
            assert b"Tools are closed for a moment" in answer.body
        assert (await house.ask(prefix)).said["name"] == "workspace"
        assert (await house.ask("/hub-tools/login")).status in {503, 504}
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
    if number is signal.SIGKILL:
        await house.agent.kill()
        await house.agent.start()
    await house.agent.ready()

    async def is_back() -> bool:
        return (await house.ask(path, token)).status == 200

    await until_async(is_back)


async def test_a_worker_that_does_not_say_where_a_port_is_closes_it(house: House) -> None:
    prefix = await house.open("owner", "lab")
    token = await house.token("owner")
    for place in (Endpoint(host="0.0.0.0", port=1), Endpoint(host="elsewhere", port=1)):  # noqa: S104  (not bound)
        house.places["ws-owner-test-lab", 9000] = place
        assert (await house.ask(f"{prefix}tools/9000/", token)).status == 502
    await house.bus.workspaces.put(
        "ws-owner-test-lab", (await house.record("ws-owner-test-lab")).model_copy(update={"node": "nowhere"})
    )

    async def is_closed() -> bool:
        answer = await house.ask(f"{prefix}tools/9001/", token)
        return answer.status == 503 and b"does not say where its ports are" in answer.body

    await until_async(is_closed)


async def test_without_a_token_of_the_hub_there_are_no_tools(house: House) -> None:
    prefix = await house.open("owner", "lab")
    token = await house.token("owner")
    await house.agent.stop()
    del house.agent.settings["HUB_API_TOKEN"]
    await house.agent.start()
    await house.agent.ready()
    answer = await house.ask(f"{prefix}tools/{TOOL}/", token)
    assert answer.status == 503
    assert b"has no token of the hub" in answer.body
