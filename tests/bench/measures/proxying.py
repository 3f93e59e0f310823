"""What a request costs and how fast a route is there, compared with configurable-http-proxy."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import aiohttp

from mlhub_shared.contracts.workspace import WorkspaceRecord
from tests.bench.bench import Bench
from tests.bench.deployment import Deployment, put_records
from tests.bench.load import put_load
from tests.bench.peers.chp import ConfigurableHttpProxy
from tests.bench.processes import Child
from tests.bench.ready_record import ready_record
from tests.bench.report import at_least, at_most
from tests.bench.sampling import at_once, interleave, percentile
from tests.bench.static_server import StaticServer

NAME = "proxy"
FEW, MANY = 10, 5000
OURS, CHP = "ours", "configurable-http-proxy"


@dataclass(frozen=True)
class Contender:
    """A proxy that runs, with its routes."""

    name: str
    routes: int
    process: Child
    url: str
    add: Callable[[str], Awaitable[None]]
    """Make a user's route."""
    remove: Callable[[str], Awaitable[None]]


@dataclass(frozen=True)
class Round:
    """What one turn of a contender gave."""

    per_second: float
    cpu_us: float
    added_ms: Sequence[float]


async def measure(bench: Bench) -> None:
    """Load, then routes added one by one; each proxy alone, with few routes and with many."""
    many = bench.amount(MANY, 200)
    async with AsyncExitStack() as stack:
        contenders = []
        server = await stack.enter_async_context(StaticServer("workspaces", bench.folder))
        for routes in (FEW, many):
            contenders.append(await stack.enter_async_context(_ours(bench, server, routes)))
            if bench.chp is not None:
                contenders.append(await stack.enter_async_context(_chp(bench, server, routes)))
        for contender in contenders:
            await _round(bench, contender)  # node compiles what runs often
        rounds = await interleave(
            bench.runs,
            {f"{one.name}, {one.routes} routes": one for one in contenders},
            partial(_round, bench),
        )
    _report(bench, rounds, many)


async def _round(bench: Bench, one: Contender) -> Round:
    paths = [f"/user/user{number}/" for number in range(one.routes)]
    before = one.process.cpu_seconds()
    load = await put_load(one.url, paths, seconds=bench.amount(3, 1), folder=bench.folder)
    cpu = one.process.cpu_seconds() - before
    async with aiohttp.ClientSession() as session:
        added = [await _added(one, session, f"new{number}") for number in range(bench.amount(30, 5))]
    return Round(load.per_second, cpu / load.requests * 1e6, added)


async def _added(one: Contender, session: aiohttp.ClientSession, user: str) -> float:
    """Milliseconds from the wish for a route to its first answer."""
    url = f"{one.url}/user/{user}/"
    started = time.monotonic()
    await one.add(user)
    async with asyncio.timeout(10):
        while await _status(session, url) != 200:  # noqa: ASYNC110  (the answer is what is waited for)
            await asyncio.sleep(0.0005)
    took = time.monotonic() - started
    await one.remove(user)
    async with asyncio.timeout(10):
        while await _status(session, url) == 200:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return took * 1000


async def _status(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url) as response:
        await response.read()
        return response.status


@asynccontextmanager
async def _ours(bench: Bench, server: StaticServer, routes: int) -> AsyncIterator[Contender]:
    folder = bench.folder / f"ours-{routes}"
    async with (
        StaticServer("hub", folder, status=404) as hub,
        Deployment(folder) as deployment,
        deployment.bus() as bus,
    ):

        def record(user: str) -> WorkspaceRecord:
            return ready_record(deployment.hub, user, node="elsewhere", port=server.port)

        async def add(user: str) -> None:
            await bus.workspaces.put((new := record(user)).name, new)

        async def remove(user: str) -> None:
            await bus.workspaces.delete(record(user).name)

        await put_records(bus, [record(f"user{number}") for number in range(routes)])
        proxy = await deployment.start_proxy(hub_url=hub.url)
        await _routed(proxy, deployment.public_url, routes)
        yield Contender(OURS, routes, proxy, deployment.public_url, add, remove)


@asynccontextmanager
async def _chp(bench: Bench, server: StaticServer, routes: int) -> AsyncIterator[Contender]:
    if bench.chp is None:
        raise RuntimeError("there is no configurable-http-proxy")
    proxy = ConfigurableHttpProxy("chp", bench.chp, bench.folder / f"chp-{routes}")
    async with proxy, proxy.session() as session:

        async def add(user: str) -> None:
            await proxy.add(session, f"/user/{user}", server.url)

        async def remove(user: str) -> None:
            await proxy.remove(session, f"/user/{user}")

        await proxy.until(proxy.is_up)
        async with asyncio.timeout(300):
            await at_once(8, [f"user{number}" for number in range(routes)], add)
        yield Contender(CHP, routes, proxy, proxy.url, add, remove)


async def _routed(proxy: Child, url: str, routes: int) -> None:
    await proxy.answers(f"{url}/user/user{routes - 1}/", within=120)


def _report(bench: Bench, rounds: dict[str, list[Round]], many: int) -> None:
    report = bench.report
    for name, runs in rounds.items():
        report.add(NAME, f"{name}, load", "requests/s", _rates(runs))
        report.add(NAME, f"{name}, CPU", "us/request", _costs(runs))
        goal = at_most(15) if name.startswith(OURS) else None
        report.add(NAME, f"{name}, add to first 200, p50", "ms", [percentile(run.added_ms, 0.5) for run in runs], goal)
        report.add(NAME, f"{name}, add to first 200, p99", "ms", [percentile(run.added_ms, 0.99) for run in runs])
    few, full = rounds[f"{OURS}, {FEW} routes"], rounds[f"{OURS}, {many} routes"]
    report.versus(NAME, f"requests/s, {FEW} / {many} routes", _rates(few), _rates(full), at_most(1.2))
    report.versus(NAME, f"CPU per request, {many} / {FEW} routes", _costs(full), _costs(few), at_most(1.2))
    for ours, routes in ((few, FEW), (full, many)):
        theirs = rounds.get(f"{CHP}, {routes} routes")
        if theirs is None:
            report.skipped[f"{NAME}, comparison at {routes} routes"] = "there is no configurable-http-proxy"
            continue
        what = f"{routes} routes, ours / theirs"
        report.versus(NAME, f"requests/s, {what}", _rates(ours), _rates(theirs), at_least(5))
        report.versus(NAME, f"CPU per request, {what}", _costs(ours), _costs(theirs), at_most(1 / 8))


def _rates(runs: Sequence[Round]) -> list[float]:
    return [run.per_second for run in runs]


def _costs(runs: Sequence[Round]) -> list[float]:
    return [run.cpu_us for run in runs]
