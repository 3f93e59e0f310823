"""From the REST call to whoever has to fulfil it, compared with the stock hub's way to `Spawner.start()`."""

import time

from tests.bench.bench import Bench
from tests.bench.contenders import OURS, STOCK_WAL, Contender, hubs
from tests.bench.report import at_most
from tests.bench.sampling import at_once, interleave, percentile

NAME = "event-path"
_SLOWER_AT_MOST_MS = 8


async def measure(bench: Bench) -> None:
    """One spawn at a time, each waited for, so that none meets the rest of another."""
    users = [f"user{number}" for number in range(bench.amount(60, 5))]
    async with hubs(bench, users, stock=[STOCK_WAL]) as contenders:

        async def delays(contender: Contender) -> list[float]:
            called = {}
            contender.stamps.clear()
            for user in users:
                called[user] = time.time()
                await contender.client.spawn(user)
            received = contender.stamps.read()
            await at_once(10, users, contender.client.stop)
            return [(received[f"spawn:{user}"] - called[user]) * 1000 for user in users]

        for contender in contenders.values():
            await delays(contender)  # the first round makes what later ones find
        results = await interleave(bench.runs, contenders, delays)
    medians = {name: [percentile(run, 0.5) for run in runs] for name, runs in results.items()}
    for name, runs in results.items():
        bench.report.add(NAME, f"POST to command, p50, {name}", "ms", medians[name])
        bench.report.add(NAME, f"POST to command, p99, {name}", "ms", [percentile(run, 0.99) for run in runs])
    more = [ours - stock for ours, stock in zip(medians[OURS], medians[STOCK_WAL], strict=True)]
    bench.report.add(NAME, "p50, ours - stock with WAL", "ms", more, at_most(_SLOWER_AT_MOST_MS))
