"""How late a workspace's expiry is: from its time to the stop that a worker receives."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

from mlhub_shared.bus import Bus
from tests.bench.bench import Bench
from tests.bench.deployment import Deployment, put_records
from tests.bench.ready_record import ready_record
from tests.bench.report import at_most
from tests.bench.sampling import percentile
from tests.bench.scripted_worker import NODE

NAME = "timers"
_LEAD = 15
"""Seconds for writing the records and arming the timers before the first is due."""
_SPREAD = 40
"""Seconds over which they come due."""


async def measure(bench: Bench) -> None:
    """Workspaces that expire one after the other, each with its warning shortly before."""
    amount = bench.amount(1000, 50)
    async with Deployment(bench.folder) as deployment, deployment.bus() as bus:
        await deployment.start_scripted_worker(9)
        await deployment.start_cleanup(warn_before=_WARN_BEFORE)
        late = [await _round(deployment, bus, amount, bench.amount(_SPREAD, 2)) for _ in range(bench.runs)]
    bench.report.add(NAME, f"lateness of {amount:,}, p50", "ms", [percentile(run, 0.5) for run in late])
    bench.report.add(NAME, f"lateness of {amount:,}, p99", "ms", [percentile(run, 0.99) for run in late], at_most(400))
    bench.report.add(NAME, f"lateness of {amount:,}, longest", "ms", [max(run) for run in late])
    bench.report.add(NAME, f"lateness of {amount:,}, shortest", "ms", [min(run) for run in late])
    bench.report.notes.append(
        f"{NAME}: due over {bench.amount(_SPREAD, 2)} s, each after its warning; the server looks at a crowd of timers "
        "four times a second"
    )


_WARN_BEFORE = "PT5S"


async def _round(deployment: Deployment, bus: Bus, amount: int, spread: float) -> list[float]:
    """Milliseconds between each expiry and its stop."""
    deployment.stamps.clear()
    start, generation = time.time() + _LEAD, time.time_ns() // 1000
    due = {f"user{number}": start + spread * number / amount for number in range(amount)}
    await put_records(
        bus,
        [
            ready_record(
                deployment.hub,
                user,
                node=NODE,
                port=9,
                generation=generation,
                expires_at=datetime.fromtimestamp(when, UTC),
            )
            for user, when in due.items()
        ],
    )
    if time.time() > start - _LEAD / 3:
        raise RuntimeError("the records were not written in time: the machine is too busy to measure anything")
    end = timedelta(seconds=_LEAD + spread + 30)
    async with asyncio.timeout(end.total_seconds()):
        while len(stopped := deployment.stamps.read()) < amount:  # noqa: ASYNC110  (other processes write them)
            await asyncio.sleep(0.5)
    return [(stopped[f"stop:{user}"] - when) * 1000 for user, when in due.items()]
