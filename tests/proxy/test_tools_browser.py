"""Ports of workspaces for browsers: the way to the login and back, and what a session is worth."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from mlhub_shared.contracts.events import EventKind
from tests.proxy.toolhouse import STALE, TOOL, Browser, House, running_house, socket_to

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """One for all tests of the module; each takes users of its own."""
    async with running_house(tmp_path_factory.mktemp("house")) as made:
        yield made


async def test_a_browser_is_led_to_the_login_and_back(house: House) -> None:
    async with house.browser("walker") as browser:
        prefix = await house.open("walker", "lab")
        answer = await browser.visit(f"{prefix}tools/{TOOL}/page?x=1&y=a%20b")
        assert answer.status_code == 200, (answer.url, answer.text)
        assert answer.json()["path"] == "/page?x=1&y=a%20b"
        headers = answer.json()["headers"]
        assert headers["x-forwarded-user"] == "walker"
        # Nothing of what the browser holds of the hub or of us.
        assert "cookie" not in headers
        (cookie,) = [cookie for cookie in browser.http.cookies.jar if cookie.name == "mlhub-tools"]
        assert cookie.path == f"{prefix}tools/"
        assert cookie.has_nonstandard_attr("HttpOnly")
        assert (await browser.fetch(f"{prefix}tools/{TOOL}/data")).status_code == 200


async def test_two_windows_may_log_in_at_once(house: House) -> None:
    async with house.browser("twice") as browser:
        first, second = await house.open("twice", "lab"), await house.open("twice")
        ways = [await browser.visit(f"{prefix}tools/{TOOL}/", follow=False) for prefix in (first, second)]
        begun = [await browser.visit(way.headers["Location"], follow=False) for way in ways]
        for answer in begun:
            ended = await browser.visit(answer.headers["Location"])
            assert (ended.status_code, ended.json()["name"]) == (200, "tool")


async def test_only_navigations_are_led_to_the_login(house: House) -> None:
    prefix = await house.open("owner", "lab")
    browser = Browser(f"http://localhost:{house.agent.public}")
    path = f"{prefix}tools/{TOOL}/"
    assert (await browser.visit(path, follow=False)).status_code == 302
    assert (await browser.fetch(path)).status_code == 401
    assert (await browser.fetch(path, Accept="text/html")).status_code == 401
    posted = await browser.http.post(path, headers={"Accept": "text/html", "Sec-Fetch-Mode": "navigate"})
    assert posted.status_code == 401
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        async with socket_to(house, f"{path}ws", Accept="text/html"):
            pass
    assert refusal.value.status == 401
    await browser.http.aclose()


async def test_another_users_session_does_not_open_a_workspace(house: House) -> None:
    prefix = await house.open("victim", "shut")
    async with house.browser("intruder") as browser:
        own = await house.open("intruder", "lab")
        answer = await browser.visit(f"{prefix}tools/{TOOL}/")
        assert answer.status_code == 403
        assert "You have no access to this workspace" in answer.text
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            async with socket_to(house, f"{prefix}tools/{TOOL}/ws", Cookie=browser.cookie(f"{prefix}tools/")):
                pass
        assert refusal.value.status == 403
        # Nor does the cookie of the own workspace, sent to another one.
        assert (await browser.visit(f"{own}tools/{TOOL}/")).status_code == 200
        borrowed = await house.ask(f"{prefix}tools/{TOOL}/", Cookie=browser.cookie(f"{own}tools/"))
        assert borrowed.status == 401
    (event,) = await house.events("ws-victim-test-shut", EventKind.ACCESS_DENIED, count=1)
    assert event.requester == "user:intruder"


async def test_a_session_of_another_workspace_is_no_stranger_to_the_audit(house: House) -> None:
    prefix = await house.open("victim", "other")
    async with house.browser("borrower") as browser:
        own = await house.open("borrower", "lab")
        assert (await browser.visit(f"{own}tools/{TOOL}/")).status_code == 200
        session = browser.cookie(f"{own}tools/")
        assert (await house.ask(f"{prefix}tools/{TOOL}/", Cookie=session)).status == 401
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            async with socket_to(house, f"{prefix}tools/{TOOL}/ws", Cookie=session):
                pass
        assert refusal.value.status == 401
    (event,) = await house.events("ws-victim-test-other", EventKind.ACCESS_DENIED, count=1)
    assert event.requester == "user:borrower"


async def test_two_sessions_for_one_address_are_refused_whichever_comes_first(house: House) -> None:
    async with house.browser("doubled") as browser:
        prefix = await house.open("doubled", "lab")
        path = f"{prefix}tools/{TOOL}/"
        assert (await browser.visit(path)).status_code == 200
        session = browser.cookie(f"{prefix}tools/")
        for cookies in (f"mlhub-tools=planted; {session}", f"{session}; a=1; mlhub-tools=planted"):
            assert (await house.ask(path, Cookie=cookies)).status == 400
        assert (await house.ask(path, Cookie=f"xmlhub-tools=1; {session}")).status == 200
        # Nor is a login ended by what was set beside the browser's own.
        browser.http.cookies.delete("mlhub-tools")
        to_hub = await browser.visit((await browser.visit(path, follow=False)).headers["Location"], follow=False)
        back = (await browser.visit(to_hub.headers["Location"], follow=False)).headers["Location"]
        both = f"{browser.held('mlhub-tools-login')}; mlhub-tools-login=planted"
        assert (await house.ask(back, Cookie=both)).status == 403
        assert (await browser.visit(back)).status_code == 200


async def test_a_logout_at_the_hub_ends_the_session_within_five_seconds(house: House) -> None:
    async with house.browser("leaver") as browser:
        prefix = await house.open("leaver", "lab")
        assert (await browser.visit(f"{prefix}tools/{TOOL}/")).status_code == 200
        kept = browser.cookie(f"{prefix}tools/")
        assert (await browser.visit("/hub/logout")).status_code == 200
        await asyncio.sleep(STALE)
        assert (await house.ask(f"{prefix}tools/{TOOL}/", Cookie=kept)).status == 401
        answer = await browser.visit(f"{prefix}tools/{TOOL}/")
        assert answer.url.path == "/hub/login"


async def test_a_forged_session_never_gets_as_far_as_the_hub(house: House) -> None:
    prefix = await house.open("owner", "lab")
    token = await house.token("owner")
    before = house.hub.log.read_text().count('"path": "/hub/api/user"')
    for forged in (token, f"{token}.", f"{token}.{'0' * 43}", ".", "ä.b", f"{token}.\xff"):
        assert (await house.ask(f"{prefix}tools/{TOOL}/", Cookie=f"mlhub-tools={forged}")).status == 401
    assert house.hub.log.read_text().count('"path": "/hub/api/user"') == before


async def test_a_login_that_was_not_begun_here_is_refused(house: House) -> None:
    prefix = await house.open("owner", "lab")
    async with house.browser("lured") as browser:
        assert (await browser.visit("/hub-tools/login?to=https://elsewhere/")).status_code == 403
        assert (await browser.visit("/hub-tools/login")).status_code == 403
        assert (await browser.visit("/hub-tools/oauth_callback?code=x&state=y")).status_code == 403
        assert (await browser.visit("/hub-tools/check", follow=False)).status_code == 404
    # A state of one browser is worth nothing in another one.
    async with house.browser("attacker") as attacker, house.browser("lured") as lured:
        way = await attacker.visit(f"{prefix}tools/{TOOL}/", follow=False)
        to_hub = await attacker.visit(way.headers["Location"], follow=False)
        back = await attacker.visit(to_hub.headers["Location"], follow=False)
        assert back.status_code == 302
        answer = await lured.visit(back.headers["Location"], follow=False)
        assert (answer.status_code, answer.headers.get("Set-Cookie")) == (403, None)
