"""What strangers who hammer at the gateway cost, and what somebody who works there notices."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from tests.bench.bench import Bench
from tests.bench.processes import Child, python
from tests.bench.report import at_least, at_most
from tests.bench.sampling import interleave, percentile
from tests.bench.ssh.client import pipes
from tests.bench.ssh.hosts import OURS, OurWay, our_way

NAME = "ssh-flood"
_SECONDS = 4
_SETTLE = 0.7
"""Seconds for the flood to rise."""
_PAUSE = 0.005
_FLOODS: Mapping[str, tuple[str, ...] | None] = {
    "quiet": None,
    "one address": ("--connections=40",),
    "40 addresses": ("--connections=40", "--spread"),
}
"""Arguments of the flood."""
_TOO_MANY = ("--connections=200", "--knocks")
"""More than one address has room for."""


@dataclass(frozen=True)
class Round:
    """What one turn gave."""

    echo: float
    """Median milliseconds of a line's way to a program of the workspace and back."""
    slow: float
    """All but one in a hundred were faster."""
    cpu: float
    """Of the gateway, in cores."""
    per_second: Mapping[str, float]
    """What came of the attempts."""


async def measure(bench: Bench) -> None:
    """An open session, alone and beside each kind of flood, in turn."""
    seconds = bench.amount(_SECONDS, 1)
    async with our_way(bench) as way, way.client.running(OURS, "cat") as process:
        talk = pipes(process)
        await _echo(talk)
        rounds = await interleave(bench.runs, _FLOODS, partial(_round, way, talk, seconds))
        # Last, because those who wait for their turn are in the way of others from this address.
        rounds |= {"too many": [await _round(way, talk, seconds, _TOO_MANY) for _ in range(bench.runs)]}
    report, quiet = bench.report, [one.echo for one in rounds["quiet"]]
    for name, runs in rounds.items():
        report.add(NAME, f"echo of a session, {name}, p50", "ms", [one.echo for one in runs])
        report.add(NAME, f"echo of a session, {name}, p99", "ms", [one.slow for one in runs])
        report.add(NAME, f"gateway's CPU, {name}", "cores", [one.cpu for one in runs])
    echoes = {name: [one.echo for one in runs] for name, runs in rounds.items()}
    report.versus(NAME, "echo, wrong keys from one address / quiet", echoes["one address"], quiet, at_most(2))
    report.versus(NAME, "echo, wrong keys from 40 addresses / quiet", echoes["40 addresses"], quiet)
    report.add(NAME, "wrong keys refused, 40 addresses", "1/s", _rates(rounds["40 addresses"], "refused"))
    sent_away = _rates(rounds["too many"], "sent away")
    report.add(NAME, "beyond the limits, sent away at once", "1/s", sent_away, at_least(1000))
    costs = [one.cpu / max(rate, 1) * 1e6 for one, rate in zip(rounds["too many"], sent_away, strict=True)]
    report.add(NAME, "gateway's CPU for one of them", "us", costs)


async def _round(
    way: OurWay,
    talk: tuple[asyncio.StreamWriter, asyncio.StreamReader],
    seconds: float,
    arguments: tuple[str, ...] | None,
) -> Round:
    before, started = way.gateway.cpu_seconds(), time.monotonic()
    flood = asyncio.create_task(_flood(way, seconds + _SETTLE, arguments)) if arguments is not None else None
    await asyncio.sleep(_SETTLE)
    echoes = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        echoes.append(await _echo(talk))
        await asyncio.sleep(_PAUSE)
    counts = await flood if flood else {"seconds": 1.0}
    cpu = (way.gateway.cpu_seconds() - before) / (time.monotonic() - started)
    lasted = counts.pop("seconds")
    rates = {name: count / lasted for name, count in counts.items()}
    return Round(percentile(echoes, 0.5), percentile(echoes, 0.99), cpu, rates)


async def _echo(talk: tuple[asyncio.StreamWriter, asyncio.StreamReader]) -> float:
    """Milliseconds."""
    stdin, stdout = talk
    started = time.monotonic()
    stdin.write(b"x\n")
    async with asyncio.timeout(30):
        if await stdout.readline() != b"x\n":
            raise RuntimeError("the session is gone")
    return (time.monotonic() - started) * 1000


async def _flood(way: OurWay, seconds: float, arguments: tuple[str, ...]) -> dict[str, float]:
    child = Child(
        "flood",
        python(
            *("-m", "tests.bench.ssh.flood", f"--port={way.deployment.ports['ssh']}"),
            *(f"--seconds={seconds}", *arguments),
        ),
        way.deployment.folder,
    )
    child.log.unlink(missing_ok=True)
    async with child:
        await child.until_ended(within=seconds + 60)
    found: dict[str, float] = json.loads(child.log.read_text())
    return found


def _rates(rounds: list[Round], outcome: str) -> list[float]:
    return [one.per_second.get(outcome, 0.0) for one in rounds]
