"""How many servers a hub starts in a second when starting one costs nothing."""

import time
from collections.abc import Sequence
from functools import partial

from tests.bench.bench import Bench
from tests.bench.contenders import OURS, STOCK, STOCK_WAL, Contender, hubs
from tests.bench.report import Goal, at_least
from tests.bench.sampling import at_once, interleave

NAME = "spawns"
_SPAWNS = {1: 20, 10: 50, 50: 100}
"""By how many at once."""
_NOTE = (
    f"{NAME}: every hub answers a start at once and is followed over its progress stream, by a token of its "
    "configuration; the stock one hashes such a token 16,384 times at each request, ours does not if it is long. "
    "Its default database waits for the disk at each of about ten commits: how far the others are ahead depends on "
    "what an fsync takes (below)."
)
_GOALS = {(10, STOCK): at_least(2), (10, STOCK_WAL): at_least(0.9)}


async def measure(bench: Bench) -> None:
    """Rounds of spawns at each number at once; the stops between them are not counted."""
    users = [f"user{number}" for number in range(max(_SPAWNS.values()))]
    async with hubs(bench, users, stock=[STOCK, STOCK_WAL]) as contenders:
        for contender in contenders.values():
            await _round(contender, users, 10)
        for together, spawns in _SPAWNS.items():
            some = users[: bench.amount(spawns, 2 * together)]
            turn = partial(_round, users=some, together=together)
            results = await interleave(bench.runs, contenders, turn)
            _report(bench, together, results)
    bench.report.notes.append(_NOTE)


async def _round(contender: Contender, users: Sequence[str], together: int) -> tuple[float, float]:
    """Spawns per second and the hub's CPU milliseconds per spawn."""
    before, started = contender.process.cpu_seconds(), time.monotonic()
    await at_once(together, users, contender.client.spawn)
    seconds, cpu = time.monotonic() - started, contender.process.cpu_seconds() - before
    await at_once(10, users, contender.client.stop)
    return len(users) / seconds, cpu / len(users) * 1000


def _report(bench: Bench, together: int, results: dict[str, list[tuple[float, float]]]) -> None:
    rates = {name: [rate for rate, _ in runs] for name, runs in results.items()}
    for name, runs in results.items():
        bench.report.add(NAME, f"{together} at once, {name}", "spawns/s", rates[name])
        bench.report.add(NAME, f"{together} at once, hub's CPU, {name}", "ms/spawn", [cpu for _, cpu in runs])
    for peer in (STOCK, STOCK_WAL):
        goal: Goal | None = _GOALS.get((together, peer))
        bench.report.versus(NAME, f"{together} at once, ours / {peer}", rates[OURS], rates[peer], goal)
