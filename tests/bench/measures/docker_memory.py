"""What a worker of containers weighs when it answers for 500 workspaces."""

import asyncio
from datetime import UTC, datetime

from mlhub_shared.contracts.workspace import Phase, Reason, Wanted, WorkspaceRecord, WorkspaceSpec
from tests.bench.bench import Bench
from tests.bench.deployment import put_records
from tests.bench.engine.contender import Seat
from tests.bench.engine.hubs import HubContender, ours
from tests.bench.engine.lab import lab
from tests.bench.ready_record import ready_record
from tests.bench.report import at_most

NAME = "docker-memory"
_MB = 1_000_000
_NODE = "here"


async def measure(bench: Bench) -> None:
    """Most of them are stopped; the others are started while we wait, and some of them once more."""
    amount, running = bench.amount(500, 50), bench.amount(20, 2)
    seats = [Seat(f"user{number}") for number in range(running)]
    async with lab(bench) as one, ours(bench, one) as deployment, deployment.bus() as bus:
        await deployment.start_proxy()
        stopped = [_stopped(one.name, f"stopped{number}", one.image) for number in range(amount - running)]
        await put_records(bus, stopped)
        worker = await deployment.start_worker()
        await deployment.start_hub()
        async with deployment.client() as client:
            await client.create_users([seat.user for seat in seats])
            before = worker.memory_bytes()
            await HubContender(one, client, label="mlhub.origin", ours=True).up(seats)
            await asyncio.sleep(bench.amount(5, 1))
            after, most = worker.memory_bytes(), worker.peak_memory_bytes()
    bench.report.add(NAME, f"worker, {amount - running} records of its own, stopped", "MB", [before / _MB])
    bench.report.add(NAME, f"worker, {amount} records, {running} of them up", "MB", [after / _MB], at_most(120))
    bench.report.add(NAME, f"worker, {amount} records, the most it ever took", "MB", [most / _MB])


def _stopped(hub: str, user: str, image: str) -> WorkspaceRecord:
    now = datetime.now(UTC)
    return ready_record(hub, user, node=_NODE, port=9).model_copy(
        update={
            "wanted": Wanted.STOPPED,
            "phase": Phase.STOPPED,
            "reason": Reason.ASKED,
            "endpoint": None,
            "phase_since": now,
            "spec": WorkspaceSpec(profile="default", image=image, is_mount_volume=False),
        }
    )
