"""Tools by HTTPS and HTTP/2, with clients that speak it."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Page
from pydantic import SecretStr

from mlhub_proxy.tools.seals import Seals, Ticket
from tests.hub.pages.browser import browser, chromium
from tests.proxy.test_tools_paths import HERE, THERE, said_by, ways
from tests.proxy.toolhouse import PROXY_TOKEN, TOOL, House, running_house
from tests.support.hub_process import ADMIN_PASSWORD

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOMAIN = "tools.test"

OPEN_SOCKET = """address => new Promise(resolve => {
    const socket = new WebSocket(address)
    socket.onopen = () => socket.send("hello")
    socket.onmessage = message => { socket.close(); resolve(message.data) }
    socket.onerror = () => resolve("refused")
})"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running_house(tmp_path_factory.mktemp("house"), TLS="on", TOOLS_DOMAIN=DOMAIN) as made:
        await made.open("alice", "lab")
        await made.open("victim", "lab")
        await made.open("admin", "lab")
        yield made


async def curl(house: House, path: str, *options: str) -> tuple[int, str, bytes]:
    """Status, protocol and body of a request by HTTP/2."""
    url = f"https://localhost:{house.agent.public}"
    with tempfile.NamedTemporaryFile() as file:
        process = await asyncio.create_subprocess_exec(
            "curl", "-sk", "--http2", "--path-as-is", "-m", "20", "-o", file.name, "-w", "%{http_code} %{http_version}",
            "--request-target", path, url, *options, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        told, _ = await process.communicate()
        status, version = told.decode().split()
        return int(status), version, file.read()


async def test_a_token_opens_a_port_by_http_2(house: House) -> None:
    token = f"Authorization: token {await house.token('alice')}"
    options = ("-H", token, "-H", "Cookie: a=1", "-H", "Cookie: b=2; jupyterhub-session-id=x")
    status, version, body = await curl(house, f"{HERE}tools/{TOOL}/x?y", *options)
    assert (status, version, said_by(body)) == (200, "2", "tool")
    headers = json.loads(body)["headers"]
    assert (headers["x-forwarded-proto"], headers["x-forwarded-host"]) == ("https", f"localhost:{house.agent.public}")
    assert headers["cookie"] == "a=1; b=2"


async def test_no_way_to_write_a_path_opens_a_port_by_http_2(house: House) -> None:
    token = f"Authorization: token {await house.token('alice')}"
    for written in [*ways(HERE), *ways(THERE)]:
        options = ("-H", token) if written in ways(THERE) else ()
        status, version, body = await curl(house, written, *options)
        assert said_by(body) != "tool", (written, status, version, body)
        assert version in {"2", "0"}
    for host in ("Host: elsewhere", "X-HTTP-Method-Override: GET"):
        assert said_by((await curl(house, f"{HERE}tools/{TOOL}/", "-H", host))[2]) != "tool"


async def test_only_a_session_that_no_other_host_can_plant_counts_by_https(house: House) -> None:
    session = Seals(SecretStr(PROXY_TOKEN)).session(await house.token("alice"), "ws-alice-test-lab")
    site = ("-H", f"Host: {TOOL}--ws-alice-test-lab.{DOMAIN}")
    for path, host, prefix in ((f"{HERE}tools/{TOOL}/", (), "__Secure-"), ("/", site, "__Host-")):
        for tried in ("", "__Secure-", "__Host-"):
            cookies = f"Cookie: {tried}mlhub-tools={session}; theirs=1"
            status, _, body = await curl(house, path, *host, "-H", cookies)
            assert status == (200 if tried == prefix else 401), (path, tried)
            if tried == prefix:
                assert json.loads(body)["headers"]["cookie"] == "theirs=1"
    url = f"https://localhost:{house.agent.public}"
    ticket = Seals(SecretStr(PROXY_TOKEN)).ticket(Ticket(name="ws-alice-test-lab", below=""))
    for headers, start, path in (
        ({}, "__Secure-mlhub-tools-login=", "/hub-tools/"),
        ({"Host": f"{TOOL}--ws-alice-test-lab.{DOMAIN}"}, "__Host-mlhub-tools-login=", "/"),
    ):
        async with httpx.AsyncClient(verify=False, trust_env=False) as client:  # noqa: S501  (our own, for a test)
            answer = await client.get(f"{url}/hub-tools/login?to={ticket}", headers=headers)
        cookie = answer.headers["Set-Cookie"]
        assert cookie.startswith(start), cookie
        assert {f"Path={path}", "Secure", "HttpOnly"} <= set(cookie.split("; "))
        assert "domain" not in cookie.lower()


async def socket_from(page: Page, address: str) -> object:
    return await page.evaluate(OPEN_SOCKET, address)


@pytest.mark.skipif(chromium() is None, reason="needs chromium on PATH")
async def test_a_real_browser_logs_in_and_has_web_sockets_from_its_own_pages_alone(house: House) -> None:
    url, path = f"https://localhost:{house.agent.public}", f"/user/admin/lab/tools/{TOOL}"
    async with browser() as started:
        context = await started.new_context(ignore_https_errors=True)
        page = await context.new_page()
        await page.goto(f"{url}{path}/page?x=1")
        await page.fill("[name=username]", "admin")
        await page.fill("[name=password]", ADMIN_PASSWORD)
        await page.click("#login_submit")
        await page.wait_for_url(f"{url}{path}/page?x=1")
        assert json.loads(await page.inner_text("body"))["path"] == "/page?x=1"
        (cookie,) = [one for one in await context.cookies() if one["name"] == "__Secure-mlhub-tools"]
        assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Lax")
        assert cookie["path"] == "/user/admin/lab/tools/"
        address = f"wss://localhost:{house.agent.public}{path}/ws"
        assert await socket_from(page, address) == "tool:hello"
        # Pages of another origin, though of the same host.
        foreign = await context.new_page()
        await foreign.goto(f"http://localhost:{house.workspace.port}/")
        assert await socket_from(foreign, address) == "refused"
        posted = await foreign.evaluate(
            "address => fetch(address, {method: 'POST', mode: 'no-cors', credentials: 'include'}).then(() => 1)",
            f"{url}{path}/evil",
        )
        assert posted == 1
        assert not any("/evil" in path for path in house.tool.paths)
