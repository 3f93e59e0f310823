"""The hub is killed while people work: how long it is away, and what their work notices."""

import asyncio
import random
import signal
import time
from dataclasses import dataclass, field

import aiohttp

from tests.bench.bench import Bench
from tests.bench.deployment import Deployment
from tests.bench.processes import Child
from tests.bench.report import at_most
from tests.bench.rest import HubClient
from tests.bench.sampling import at_once
from tests.bench.static_server import StaticServer

NAME = "hub-restart"
_PEOPLE = 8
_PAUSE = 0.02
"""Seconds between two requests of one of them."""
_QUIET_SECONDS = 2
"""Requests go on for so long before the kill and after the return."""
_KNOWN_WITHIN = 120
"""Seconds that the hub may take to find all workspaces again."""


@dataclass
class Traffic:
    """What the people who work meanwhile got."""

    good: int = 0
    failed: list[str] = field(default_factory=list)
    slowest: float = 0


@dataclass(frozen=True)
class Round:
    """One restart."""

    seconds: float
    """Until the hub's API answers."""
    all_ready: float
    """Until the hub has looked at every workspace and found it ready, as it was."""
    traffic: Traffic


async def measure(bench: Bench) -> None:
    """kill -9, start again, until the API answers; requests through the proxy all the while."""
    users = [f"user{number}" for number in range(bench.amount(500, 20))]
    async with StaticServer("workspaces", bench.folder) as server, Deployment(bench.folder) as deployment:
        await deployment.start_proxy()
        await deployment.start_scripted_worker(server.port)
        hub = await deployment.start_hub()
        async with deployment.client() as client:
            for first in range(0, len(users), 50):
                await client.create_users(users[first : first + 50])
            await at_once(10, users, client.spawn)
            rounds = []
            for _ in range(bench.runs):
                one, hub = await _round(deployment, hub, client, users)
                rounds.append(one)
    report, what = bench.report, f"{len(users)} workspaces"
    report.add(NAME, f"{what}, kill -9 to the API's answer", "s", [one.seconds for one in rounds])
    report.add(NAME, f"{what}, kill -9 to all of them known as ready", "s", [one.all_ready for one in rounds])
    report.add(NAME, f"{what}, requests meanwhile", "", [one.traffic.good for one in rounds])
    report.add(NAME, f"{what}, failed", "", [len(one.traffic.failed) for one in rounds], at_most(0))
    report.add(NAME, f"{what}, slowest request", "ms", [one.traffic.slowest * 1000 for one in rounds])
    for failure in sorted({failure for one in rounds for failure in one.traffic.failed}):
        report.notes.append(f"{NAME}: a request failed: {failure}")


async def _round(deployment: Deployment, hub: Child, client: HubClient, users: list[str]) -> tuple[Round, Child]:
    traffic, done = Traffic(), asyncio.Event()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session, asyncio.TaskGroup() as group:
        for _ in range(_PEOPLE):
            group.create_task(_work(session, deployment.public_url, users, traffic, done))
        try:
            await asyncio.sleep(_QUIET_SECONDS)
            started = time.monotonic()
            await hub.end(signal.SIGKILL)
            hub = await deployment.start_hub()
            seconds = time.monotonic() - started
            async with asyncio.timeout(_KNOWN_WITHIN):
                while await client.ready_servers() != len(users):  # noqa: ASYNC110  (the API has no other way)
                    await asyncio.sleep(0.1)
            all_ready = time.monotonic() - started
            await asyncio.sleep(_QUIET_SECONDS)
        finally:
            done.set()
    return Round(seconds, all_ready, traffic), hub


async def _work(
    session: aiohttp.ClientSession, url: str, users: list[str], traffic: Traffic, done: asyncio.Event
) -> None:
    while not done.is_set():
        started = time.monotonic()
        try:
            async with session.get(f"{url}/user/{random.choice(users)}/api") as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            traffic.failed.append(type(error).__name__)
        else:
            if response.status == 200:
                traffic.good += 1
            else:
                traffic.failed.append(f"status {response.status}")
        traffic.slowest = max(traffic.slowest, time.monotonic() - started)
        await asyncio.sleep(_PAUSE)
