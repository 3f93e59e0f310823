"""What open sessions weigh, and a stream that its reader can't keep up with."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace

from tests.bench.bench import Bench
from tests.bench.processes import Child
from tests.bench.report import at_most
from tests.bench.sampling import at_once
from tests.bench.ssh.client import pipes
from tests.bench.ssh.hosts import OURS, OurWay, our_way

NAME = "ssh-sessions"
_SESSIONS = 100
_MEGABYTES = 100
_PIECE = 256 * 1024
_PAUSE = 0.02
"""Seconds between two pieces that the slow reader takes: some 12 MB/s."""
# Everybody comes from one address here.
_SETTINGS = {"MLHUB_SSH_GATEWAY_CONNECTIONS_PER_SECOND": 1000}


async def measure(bench: Bench) -> None:
    """Each round on services that have just been started: what was once used, Python keeps for the next."""
    sessions, megabytes = bench.amount(_SESSIONS, 5), bench.amount(_MEGABYTES, 5)
    rounds = []
    for number in range(bench.amount(min(bench.runs, 3), 1)):
        fresh = replace(bench, folder=bench.folder / str(number))
        async with our_way(fresh, settings=_SETTINGS) as way:
            services = {"gateway": way.gateway, "attach": way.worker}
            async with AsyncExitStack() as stack:
                await _open(way, 3, stack)  # what the first ones load
                idle = await _idle(way, services, sessions)
            rounds.append((idle, await _slow(way, services, megabytes * 1_000_000)))
    for name in ("gateway", "attach"):
        each = [idle[name] / sessions / 1000 for idle, _ in rounds]
        bench.report.add(NAME, f"{sessions} idle terminals, {name}", "kB each", each, at_most(150))
        most = [slow[name] / 1e6 for _, slow in rounds]
        bench.report.add(NAME, f"{megabytes} MB to a slow reader, {name}", "MB more", most, at_most(10))


async def _idle(way: OurWay, services: Mapping[str, Child], sessions: int) -> dict[str, int]:
    """Bytes that the services grow by when so many sessions are opened."""
    before = _weights(services)
    async with AsyncExitStack() as stack:
        await _open(way, sessions, stack)
        await asyncio.sleep(1)
        return _growth(before, services)


async def _open(way: OurWay, sessions: int, stack: AsyncExitStack) -> None:
    async def enter(_: int) -> None:
        process = await stack.enter_async_context(way.client.running(OURS, "-tt", "echo in; exec cat"))
        stdout = pipes(process)[1]
        if await stdout.readline() != b"in\r\n":
            raise RuntimeError("a session did not open")

    await at_once(4, range(sessions), enter)


async def _slow(way: OurWay, services: Mapping[str, Child], size: int) -> dict[str, int]:
    """Bytes that the services grow by at most while somebody reads slowly."""
    before, most = _weights(services), dict.fromkeys(services, 0)
    async with way.client.running(OURS, f"head -c {size} /dev/zero") as process:
        stdout = pipes(process)[1]
        taken = 0
        while data := await stdout.read(_PIECE):
            taken += len(data)
            for name, grown in _growth(before, services).items():
                most[name] = max(most[name], grown)
            await asyncio.sleep(_PAUSE * len(data) / _PIECE)
    if taken != size:
        raise RuntimeError(f"{taken} bytes of {size} arrived")
    return most


def _weights(services: Mapping[str, Child]) -> dict[str, int]:
    return {name: child.proportional_memory_bytes() for name, child in services.items()}


def _growth(before: Mapping[str, int], services: Mapping[str, Child]) -> dict[str, int]:
    return {name: weight - before[name] for name, weight in _weights(services).items()}
