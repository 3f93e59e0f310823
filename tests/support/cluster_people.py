"""Who is at work while a deployment is changed under him: each notes what went wrong for him, and when."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

import aiohttp
import httpx

from tests.support.cluster_pod import ServicePod
from tests.support.cluster_stack import API_TOKEN, ClusterStack
from tests.support.hub_client import HubClient, base_url
from tests.support.openssh import OpenSsh

_PATIENCE = 30.0
"""Seconds that a workspace may take to be what it was asked to be."""


class Outages:
    """When the hub was away, which nobody can hold against it."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """It is now."""
        begun = time.monotonic()
        self._spans.append((begun, float("inf")))
        try:
            yield
        finally:
            self._spans[-1] = (begun, time.monotonic())

    def excuse(self, begun: float) -> bool:
        """Whether a request from then until now was in one."""
        return any(begun <= end and first <= time.monotonic() for first, end in self._spans)


@dataclass
class Visitor:
    """Asks a workspace all the time, each time by a new connection."""

    stack: ClusterStack
    user: str
    answers: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    asked: int = 0

    def run(self, over: threading.Event) -> None:
        """Until it is over."""
        url = f"{self.stack.url}{base_url(self.user)}api"
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(verify=self.stack.trust, trust_env=False, timeout=10, limits=limits) as client:
            while not over.wait(0.1):
                self.asked += 1
                try:
                    answer = client.get(url)
                except httpx.TransportError as error:
                    self.failures.append(f"{time.strftime('%X')} {error!r}")
                    continue
                if answer.status_code == 200:
                    self.answers.add(answer.text)
                else:
                    self.failures.append(f"{time.strftime('%X')} {answer.status_code} {answer.text[:200]}")


@dataclass
class Automaton:
    """Makes a workspace, waits for it, stops it, deletes it, and begins anew."""

    stack: ClusterStack
    user: str
    outages: Outages
    failures: list[str] = field(default_factory=list)
    done: int = 0

    def run(self, over: threading.Event) -> None:
        """Until it is over, and all that was begun is ended."""
        hub = HubClient(self.stack.url, API_TOKEN, trust=self.stack.trust)
        try:
            for number in count():
                if over.is_set():
                    return
                self._one(hub, f"s{number}")
                self.done += 1
        except AssertionError as error:
            self.failures.append(str(error))
        finally:
            hub.close()

    def _one(self, hub: HubClient, server: str) -> None:
        path = f"/users/{self.user}/servers/{server}"
        # 400: it was asked for, but the answer was lost.
        self._ask(hub, "POST", path, {201, 202, 400}, {"env": {"FAKE_DELAY": "0.5"}})
        self._until(server, "ready", lambda: self._server(hub, server).get("ready"))
        self._ask(hub, "DELETE", path, {202, 204}, None)
        self._until(server, "stopped", lambda: not self._server(hub, server))
        self._ask(hub, "DELETE", path, {202, 204, 404}, {"remove": True})

    def _server(self, hub: HubClient, server: str) -> dict[str, object]:
        answer = self._ask(hub, "GET", f"/users/{self.user}", {200}, None)
        found: dict[str, dict[str, object]] = answer.json()["servers"]
        return found.get(server, {})

    def _ask(
        self, hub: HubClient, method: str, path: str, expected: set[int], fields: dict[str, object] | None
    ) -> httpx.Response:
        """Once, and again only if the hub was away meanwhile."""
        for _ in range(300):
            begun = time.monotonic()
            try:
                answer = hub.request(method, path, json=fields)
            except httpx.TransportError as error:
                said = repr(error)
            else:
                if answer.status_code in expected:
                    return answer
                said = f"{answer.status_code} {answer.text[:300]}"
            if not self.outages.excuse(begun):
                self.failures.append(f"{time.strftime('%X')} {method} {path}: {said}")
            time.sleep(0.2)
        raise AssertionError(f"{method} {path} never worked: {said}")

    def _until(self, server: str, what: str, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{time.strftime('%X')} {self.user}/{server} is not {what}"
            time.sleep(0.1)


class Talk:
    """A connection that stays: says something every now and then, and waits for the answer."""

    def __init__(self, by: ServicePod, say: Callable[[], Awaitable[None]]) -> None:
        self.by = by
        self._say = say
        self._task = asyncio.ensure_future(self._run())

    @property
    def is_open(self) -> bool:
        """The answers still come."""
        return not self._task.done()

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            async with asyncio.timeout(20):
                await self._say()
            await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def websocket(stack: ClusterStack, proxy: ServicePod, user: str) -> AsyncIterator[Talk]:
    """Through that proxy."""
    url = f"https://{proxy.address}:8080{base_url(user)}ws"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, ssl=False) as socket:

        async def say() -> None:
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"

        talk = Talk(proxy, say)
        try:
            yield talk
        finally:
            await talk.aclose()


@contextlib.asynccontextmanager
async def ssh_session(ssh: OpenSsh, gateway: ServicePod, user: str) -> AsyncIterator[Talk]:
    """Through that gateway, by its own port."""
    options = ("-o", f"HostName={gateway.address}", "-p", "2222", "-o", "HostKeyAlias=hub")
    process = await ssh.start(user, "cat", options=options)

    async def say() -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hello\n")
        assert await process.stdout.readline() == b"hello\n"

    talk = Talk(gateway, say)
    try:
        yield talk
    finally:
        await talk.aclose()
        if process.returncode is None:
            process.kill()
        await process.communicate()
