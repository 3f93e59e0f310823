"""A hub, a proxy and a worker's answers about ports, for the tests of tools."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.queries import OPEN_PORT, OpenPort
from mlhub_shared.contracts.workspace import Endpoint, WorkspaceRecord, WorkspaceSpec
from mlhub_shared.errors import NotFound
from tests.conftest import bus_settings
from tests.proxy.backend import Backend
from tests.proxy.conftest import applied, put, ready
from tests.proxy.stack import Agent, Answer, ask
from tests.support.hub_process import ADMIN_PASSWORD, Api, HubProcess
from tests.support.makers import NOW
from tests.support.nats_server import NatsServer

NODE, TOOL = "node1", 8050
STALE = 5.0
"""Seconds that what the hub has said may still hold."""
PROXY_TOKEN = "a-token-of-the-proxy-that-is-long-enough"


@dataclass
class House:
    """Everything such a test acts on."""

    bus: Bus
    hub: HubProcess
    agent: Agent
    api: Api
    workspace: Backend
    """Serves every workspace itself."""
    tool: Backend
    """Serves the port TOOL of every workspace."""
    places: dict[tuple[str, int], Endpoint] = field(default_factory=dict)
    """Who listens: workspace and port to where the proxy reaches it."""
    questions: list[OpenPort] = field(default_factory=list)
    """What the worker was asked."""

    async def open(self, user: str, server: str = "", *, generation: int = 1, own: bool = False) -> str:
        """A ready workspace with a tool; its prefix."""
        spec = WorkspaceSpec(own_tools=own)
        record = ready(self.workspace, user, server, node=NODE, generation=generation, spec=spec)
        self.places[record.name, TOOL] = Endpoint(host="127.0.0.1", port=self.tool.port)
        await applied(self.bus, workspaces=await put(self.bus, record))
        return record.base_url

    async def record(self, name: str) -> WorkspaceRecord:
        entry = await self.bus.workspaces.get(name)
        assert entry is not None
        return entry.value

    async def user(self, name: str) -> None:
        assert await self.api.status("POST", f"/users/{name}") in {201, 409}

    async def token(self, name: str, *scopes: str) -> str:
        """An API token; without scopes it may all that its user may."""
        await self.user(name)
        answer = await self.api("POST", f"/users/{name}/tokens", {"scopes": scopes} if scopes else {}, expect=201)
        return str(answer["token"])

    async def events(self, workspace: str, kind: EventKind, *, count: int) -> list[Event]:
        """What the audit stream tells of a workspace, as soon as there is so much of it."""
        found: list[Event] = []
        async with asyncio.timeout(20):
            async for event in self.bus.replay(workspace, since=NOW):
                if event.kind is kind:
                    found.append(event)
                if len(found) >= count:
                    return found
        return found

    async def ask(self, path: str, token: str | None = None, *, method: str = "GET", **headers: str) -> Answer:
        """One request, its path as it is written."""
        own = {"Authorization": f"token {token}"} if token else {}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await ask(self.agent.public, path, method=method, headers=own | named)

    @asynccontextmanager
    async def browser(self, name: str = "admin") -> AsyncIterator["Browser"]:
        """Somebody logged in at the hub, through the proxy."""
        browser = Browser(self.agent.settings["PUBLIC_URL"])
        try:
            await browser.login(name)
            yield browser
        finally:
            await browser.http.aclose()

    async def _open_port(self, query: OpenPort) -> Endpoint:
        self.questions.append(query)
        place = self.places.get((query.workspace.name, query.port))
        if place is None:
            raise NotFound("nothing listens there")
        return place


class _Loopback(httpx.AsyncBaseTransport):
    """Finds every host here."""

    def __init__(self) -> None:
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        here = request.url.copy_with(host="127.0.0.1")
        return await self._inner.handle_async_request(
            httpx.Request(request.method, here, headers=request.headers, stream=request.stream)
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class Browser:
    """Cookies, and what a browser says of its requests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.AsyncClient(base_url=url, timeout=30, trust_env=False, transport=_Loopback())

    async def login(self, name: str) -> None:
        """By the hub's form; a new user signs up before."""
        if name != "admin":
            await self._form("/hub/signup", username=name, password=ADMIN_PASSWORD, password_again=ADMIN_PASSWORD)
        answer = await self._form("/hub/login", username=name, password=ADMIN_PASSWORD)
        assert answer.status_code == 302, answer.text

    async def visit(self, path: str, *, follow: bool = True) -> httpx.Response:
        """Go there."""
        headers = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        return await self.http.get(path, headers=headers, follow_redirects=follow)

    async def fetch(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        """What a script of the page does."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        own = {"Accept": "*/*", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin"}
        return await self.http.request(method, path, headers=own | named)

    def cookie(self, path: str, host: str = "") -> str:
        """The proxy's, as a header, that the browser has for this path."""
        jar = [one for one in self.http.cookies.jar if one.name == "mlhub-tools" and one.domain.startswith(host)]
        (found,) = [one for one in jar if one.path == path]
        return f"mlhub-tools={found.value}"

    def held(self, name: str) -> str:
        """The one cookie of this name, as a header."""
        (found,) = [one for one in self.http.cookies.jar if one.name == name]
        return f"{name}={found.value}"

    async def _form(self, path: str, **data: Any) -> httpx.Response:
        page = await self.visit(path)
        token = re.search(r'name="_xsrf"\s+value="([^"]+)"', page.text)
        assert token is not None, page.text
        headers = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin"}
        return await self.http.post(path, data=data | {"_xsrf": token[1]}, headers=headers)


@asynccontextmanager
async def socket_to(house: House, path: str, **headers: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A WebSocket."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"ws://localhost:{house.agent.public}{path}"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=named) as socket:
        yield socket


@asynccontextmanager
async def running_house(folder: Path, *, host: str = "localhost", **settings: str) -> AsyncIterator[House]:
    """All of it; people type this host."""
    nats = await NatsServer(folder / "nats").start()
    bus = await Bus.open(bus_settings(nats))
    hub = HubProcess(
        folder / "hub", nats, "http://127.0.0.1:1", MLHUB_PROXY_HUB_API_TOKEN=PROXY_TOKEN, MLHUB_HUB_OPEN_SIGNUP="true"
    )
    agent = Agent(
        folder,
        nats,
        hub.port,
        HUB_API_URL=f"{hub.url}/hub/api",
        HUB_API_TOKEN=PROXY_TOKEN,
        SHUTDOWN_GRACE="0",
        **settings,
    )
    workspace, tool = await Backend("workspace").start(), await Backend("tool").start()
    house = House(bus, hub, agent, Api(hub), workspace, tool)
    await bus.answer(OPEN_PORT, OpenPort, house._open_port, node=NODE)
    scheme = "https" if settings.get("TLS") == "on" else "http"
    agent.settings["PUBLIC_URL"] = f"{scheme}://{host}:{agent.public}"
    hub.set(MLHUB_HUB_PUBLIC_URL=agent.settings["PUBLIC_URL"])
    try:
        await agent.start()
        await hub.start(within=120)
        await agent.ready()
        yield house
    finally:
        await agent.stop()
        agent.clean_up()
        await hub.stop()
        await workspace.stop()
        await tool.stop()
        await bus.close()
        await nats.stop()
