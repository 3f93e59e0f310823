"""Each port of a workspace as a site of its own."""

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from pydantic import SecretStr

from mlhub_proxy.tools.seals import Seals, Ticket
from tests.proxy.stack import Answer, ask
from tests.proxy.toolhouse import PROXY_TOKEN, TOOL, Browser, House, running_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOMAIN = "tools.test"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """One for all tests of the module."""
    async with running_house(tmp_path_factory.mktemp("house"), host="hub.test", TOOLS_DOMAIN=DOMAIN) as made:
        yield made


def host_of(user: str, server: str, port: int = TOOL) -> str:
    return f"{port}--ws-{user}-test-{server}.{DOMAIN}"


def site_of(house: House, user: str, server: str, port: int = TOOL) -> str:
    return f"http://{host_of(user, server, port)}:{house.agent.public}"


async def get(house: House, host: str, path: str = "/", token: str | None = None, **headers: str) -> Answer:
    own = {"Authorization": f"token {token}"} if token else {}
    return await ask(house.agent.public, path, headers={"Host": host} | own | headers)


async def test_a_program_reaches_a_port_by_its_host(house: House) -> None:
    await house.open("owner", "lab")
    token = await house.token("owner")
    for host in (host_of("owner", "lab"), host_of("owner", "lab").upper(), f"{host_of('owner', 'lab')}.:80"):
        answer = await get(house, host, "/hub/home?x=1", token)
        assert (answer.said["name"], answer.said["path"]) == ("tool", "/hub/home?x=1")
    headers = answer.said["headers"]
    assert headers["x-forwarded-user"] == "owner"
    assert not {"x-forwarded-prefix", "authorization"} & headers.keys()
    assert (await get(house, host_of("owner", "lab"))).status == 401
    assert (await get(house, host_of("owner", "lab"), "/", await house.token("other"))).status == 403
    assert (await get(house, host_of("owner", "lab", 22), "/", token)).status == 404
    assert (await get(house, host_of("owner", "lab", 9999), "/", token)).status == 502


@pytest.mark.parametrize(
    "host",
    [
        f"ws-owner-test-lab.{DOMAIN}",
        f"0{TOOL}--ws-owner-test-lab.{DOMAIN}",
        f"{TOOL}--ws-nobody-test.{DOMAIN}",
        f"{TOOL}-ws-owner-test-lab.{DOMAIN}",
        f"a.{TOOL}--ws-owner-test-lab.{DOMAIN}",
        f"hub.{DOMAIN}",
        f".{DOMAIN}",
    ],
)
@pytest.mark.parametrize(
    "path", ["/", "/hub/login", "/user/owner/lab/", f"/user/owner/lab/tools/{TOOL}/", "/hub-tools/x"]
)
async def test_no_other_host_of_the_domain_leads_anywhere(house: House, host: str, path: str) -> None:
    await house.open("owner", "lab")
    answer = await get(house, host, path, await house.token("owner"))
    assert answer.status == 404, answer
    assert "x-jupyterhub-version" not in answer.headers


async def test_a_browser_logs_in_at_the_hub_and_has_a_session_for_the_site_alone(house: House) -> None:
    async with house.browser("siter") as browser:
        await house.open("siter", "lab")
        site = site_of(house, "siter", "lab")
        answer = await browser.visit(f"{site}/page?x=1")
        assert answer.status_code == 200, (answer.url, answer.text)
        assert str(answer.url) == f"{site}/page?x=1"
        assert answer.json()["path"] == "/page?x=1"
        assert "cookie" not in answer.json()["headers"]
        assert [urlsplit(str(one.url)).path for one in answer.history] == [
            "/page",
            "/hub-tools/login",
            "/hub-tools/login",
            "/hub/api/oauth2/authorize",
            "/hub-tools/oauth_callback",
            "/hub-tools/enter",
        ]
        cookie = browser.cookie("/", host_of("siter", "lab"))
        assert (await get(house, host_of("siter", "lab"), Cookie=cookie)).status == 200
        await house.open("siter", "two")
        assert (await get(house, host_of("siter", "two"), Cookie=cookie)).status == 401
        assert (await browser.fetch(f"{site}/", "POST", Origin=site)).status_code == 200
        assert (
            await browser.fetch(f"{site}/", "POST", Origin=browser.url, Sec_Fetch_Site="same-site")
        ).status_code == 403


async def test_a_return_never_leads_to_another_site(house: House) -> None:
    async with house.browser("returner") as browser:
        await house.open("returner", "lab")
        site = site_of(house, "returner", "lab")
        label = host_of("returner", "lab").partition(".")[0]
        for below in ("/elsewhere.test/x", "\\elsewhere.test/x", "//elsewhere.test/x"):
            ticket = Ticket(name="ws-returner-test-lab", below=below, site=label)
            way = f"{site}/hub-tools/login?to={Seals(SecretStr(PROXY_TOKEN)).ticket(ticket)}"
            answer = await browser.visit(way)
            assert (str(answer.url), answer.status_code) == (f"{site}/elsewhere.test/x", 200)


async def way_in(browser: Browser, site: str) -> str:
    """All of a login but its last step."""
    way = f"{site}/"
    for _ in range(5):
        answer = await browser.visit(way, follow=False)
        way = str(answer.url.join(answer.headers["Location"]))
    assert urlsplit(way).path == "/hub-tools/enter"
    return way


async def test_the_ends_of_a_login_are_bound_to_one_browser(house: House) -> None:
    async with house.browser("hunter") as hunter, house.browser("prey") as prey:
        await house.open("hunter", "lab")
        site = site_of(house, "hunter", "lab")
        for begins, ends in ((hunter, prey), (prey, hunter)):
            way = await way_in(begins, site)
            refused = await ends.visit(way, follow=False)
            assert (refused.status_code, refused.headers.get("Set-Cookie")) == (403, None)
            # On the hub's host it is worth nothing either.
            moved = await begins.visit(f"{begins.url}/hub-tools/enter?{urlsplit(way).query}", follow=False)
            assert (moved.status_code, moved.headers.get("Set-Cookie")) == (403, None)
        way = await way_in(hunter, site)
        assert [(await hunter.visit(way, follow=False)).status_code for _ in range(2)] == [303, 403]


async def test_cookies_of_a_site_stay_on_it(house: House) -> None:
    await house.open("owner", "lab")
    house.tool.answer_headers = [
        ("Set-Cookie", "a=1; Path=/deep; Domain=test"),
        ("Set-Cookie", "jupyterhub-session-id=fixed; Domain=test"),
        ("Service-Worker-Allowed", "/"),
    ]
    try:
        answer = await get(house, host_of("owner", "lab"), "/", await house.token("owner"))
    finally:
        house.tool.answer_headers = []
    assert answer.cookies == ("a=1; Path=/deep",)
    assert answer.headers["service-worker-allowed"] == "/"
