"""What it costs that the hub decides who gets to a tool, compared with a workspace's own route."""

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import aiohttp

from tests.bench import tool_workspace
from tests.bench.bench import Bench
from tests.bench.deployment import Deployment
from tests.bench.load import put_load
from tests.bench.peers.direct_haproxy import program
from tests.bench.processes import Child
from tests.bench.report import at_most
from tests.bench.sampling import at_once, rotate
from tests.support.ports import free_port

NAME = "tools"
_USER = "admin"
_TOKENS = 40
"""That nobody has asked the hub about, for each round."""


@dataclass(frozen=True)
class Place:
    """A workspace with a tool, and the proxy before it."""

    deployment: Deployment
    proxy: Child
    hub: Child
    tool: int

    def path(self, *, is_tool: bool) -> str:
        """Of the tool, or of the workspace's own server."""
        return f"/user/{_USER}/tools/{self.tool}/" if is_tool else f"/user/{_USER}/"


async def measure(bench: Bench) -> None:
    """A program's requests with a token: to the open route, to the tool, and with tokens never seen before."""
    routes = {"open route": False, "tool": True}
    async with _place(bench) as place:
        await place.proxy.until(partial(_answers, place))
        results = await rotate(bench.runs, routes, partial(_round, bench, place))
        fresh = [await _uncached(place, bench.amount(_TOKENS, 5)) for _ in range(bench.runs)]
    for name, rounds in results.items():
        bench.report.add(NAME, f"{name}, load", "requests/s", [rate for rate, _ in rounds])
        bench.report.add(NAME, f"{name}, CPU", "us/request", [cost for _, cost in rounds])
    costs = {name: [cost for _, cost in rounds] for name, rounds in results.items()}
    bench.report.versus(NAME, "CPU, tool / open route", costs["tool"], costs["open route"], at_most(2.5))
    bench.report.add(NAME, "tokens never seen before", "requests/s", [rate for rate, _ in fresh])
    bench.report.add(NAME, "hub's CPU for one of them", "ms", [cost for _, cost in fresh])


@asynccontextmanager
async def _place(bench: Bench) -> AsyncIterator[Place]:
    tool = free_port()
    settings = {
        "MLHUB_SPAWNER_WORKER_COMMAND": f"{sys.executable} {tool_workspace.__file__} {program()} {tool}",
        "MLHUB_PROXY_HAPROXY": program(),
    }
    async with Deployment(bench.folder, settings=settings) as deployment:
        proxy = await deployment.start_proxy()
        await deployment.start_worker()
        hub = await deployment.start_hub()
        async with deployment.client() as client:
            await client.spawn(_USER)
            try:
                yield Place(deployment, proxy, hub, tool)
            finally:
                # Workspaces outlive their worker.
                await client.stop(_USER)


async def _answers(place: Place) -> bool:
    """Whether a token gets to the tool, and nobody without."""
    async with aiohttp.ClientSession() as session:
        return await _status(session, place, place.deployment.token) == 200 and await _status(session, place, "") == 401


async def _status(session: aiohttp.ClientSession, place: Place, token: str) -> int:
    url = place.deployment.public_url + place.path(is_tool=True)
    async with session.get(url, headers={"Authorization": f"token {token}"} if token else {}) as response:
        await response.read()
        return response.status


async def _round(bench: Bench, place: Place, is_tool: bool) -> tuple[float, float]:
    """Requests per second, and CPU microseconds of the proxy for one."""
    before = place.proxy.cpu_seconds()
    load = await put_load(
        place.deployment.public_url,
        [place.path(is_tool=is_tool)],
        seconds=bench.amount(3, 1),
        folder=bench.folder,
        headers={"Authorization": f"token {place.deployment.token}"},
    )
    return load.per_second, (place.proxy.cpu_seconds() - before) / load.requests * 1e6


async def _uncached(place: Place, amount: int) -> tuple[float, float]:
    """Requests per second, eight at a time, and CPU milliseconds of the hub for one."""
    async with place.deployment.client() as client, aiohttp.ClientSession() as session:
        tokens = [await client.new_token(_USER) for _ in range(amount)]
        before, started = place.hub.cpu_seconds(), time.monotonic()
        statuses = await at_once(8, tokens, partial(_status, session, place))
        seconds, cpu = time.monotonic() - started, place.hub.cpu_seconds() - before
    if set(statuses) != {200}:
        raise RuntimeError(f"a tool answered {set(statuses)}")
    return amount / seconds, cpu / amount * 1000
