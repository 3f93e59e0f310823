"""Ten thousand workspaces: how fast one is found, and what they cost in memory and at a start."""

import time
from datetime import UTC, datetime

from mlhub_shared.bus import Bus, Lease
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.queries import RESOLVE_TARGET, AttachAddress, ResolveTarget, Target
from mlhub_shared.contracts.services import WorkerLease
from tests.bench.bench import Bench
from tests.bench.deployment import Deployment, put_records
from tests.bench.ready_record import ready_record
from tests.bench.report import at_most
from tests.bench.sampling import at_once, interleave, percentile

NAME = "records"
NODE = "elsewhere"
_MIB = 1024 * 1024


async def measure(bench: Bench) -> None:
    """A real worker answers for workspaces of another node; a real hub follows them all."""
    amount = bench.amount(10_000, 500)
    async with Deployment(bench.folder) as deployment, deployment.bus() as bus:
        bus.run(Lease(bus.workers, NODE, lambda: _LEASE).run())
        hub = await deployment.start_hub()
        empty = hub.memory_bytes()
        await put_records(
            bus, [ready_record(deployment.hub, f"user{number}", node=NODE, port=9) for number in range(amount)]
        )
        await deployment.start_worker()
        asked = bench.amount(1000, 100)

        async def one_by_one() -> list[float]:
            return [await _resolve(bus, deployment.hub, number * amount // asked) for number in range(asked)]

        async def ten_at_once() -> list[float]:
            return await at_once(
                10, range(asked), lambda number: _resolve(bus, deployment.hub, number * amount // asked)
            )

        await one_by_one()
        ways = {"one by one": one_by_one, "10 at once": ten_at_once}
        results = await interleave(bench.runs, ways, lambda way: way())
        replays = [await _replay(bus, amount) for _ in range(bench.runs)]
        await hub.end()
        full = (await deployment.start_hub()).memory_bytes()
    report = bench.report
    for name, runs in results.items():
        goal = at_most(10) if name == "one by one" else None
        report.add(NAME, f"resolve, {name}, p50", "ms", [percentile(run, 0.5) for run in runs])
        report.add(NAME, f"resolve, {name}, p99", "ms", [percentile(run, 0.99) for run in runs], goal)
    report.add(NAME, f"replay of a watch, {amount:,} records", "s", replays)
    report.add(NAME, "hub's memory, no record", "MiB", [empty / _MIB])
    report.add(NAME, f"hub's memory after a start, {amount:,} records", "MiB", [full / _MIB])


async def _resolve(bus: Bus, hub: str, number: int) -> float:
    """Milliseconds of one query; RuntimeError if the answer says nothing."""
    workspace = WorkspaceId(hub=hub, user=f"user{number}")
    started = time.monotonic()
    target = await bus.ask(RESOLVE_TARGET, ResolveTarget(workspace=workspace), Target)
    took = time.monotonic() - started
    if target.record is None or target.attach is None:
        raise RuntimeError(f"{workspace} was not resolved: {target}")
    return took * 1000


async def _replay(bus: Bus, amount: int) -> float:
    """Seconds until a new table holds everything."""
    started = time.monotonic()
    table = bus.start_table(bus.workspaces)
    await table.synced()
    took = time.monotonic() - started
    if len(table) != amount:
        raise RuntimeError(f"the table holds {len(table)} of {amount} records")
    return took


_LEASE = WorkerLease(
    node=NODE,
    pool="default",
    backend="process",
    attach=AttachAddress(host="127.0.0.1", port=9, host_key="ssh-ed25519 AAAA"),
    started_at=datetime.now(UTC),
)
