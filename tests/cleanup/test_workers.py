"""Workers that are gone for long."""

import asyncio
from datetime import UTC, datetime, timedelta

from mlhub_cleanup.workers import LostWorkers
from mlhub_shared.bus import Bus
from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.services import WorkerLease
from mlhub_shared.contracts.workspace import Phase
from tests.cleanup.conftest import Seen, living
from tests.support.makers import NOW
from tests.support.nats_server import NatsServer
from tests.support.waiting import until

AFTER = timedelta(minutes=2)


class Hands:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, by: timedelta) -> None:
        self.now += by


def lease(node: str) -> WorkerLease:
    return WorkerLease(node=node, pool="default", backend="process", started_at=NOW)


async def test_a_lost_worker_is_told_of_once_for_each_time(bus: Bus, seen: Seen, nats_server: NatsServer) -> None:
    records, leases, clock = bus.start_table(bus.workspaces), bus.start_table(bus.workers), Hands()
    await asyncio.gather(records.synced(), leases.synced())
    workers = LostWorkers(bus, records, leases, clock, AFTER)

    async def told() -> list[object]:
        await workers.look()
        return [event.detail["node"] for event in await seen.events(EventKind.WORKER_LOST)]

    kept = await seen.put(living("n1", node="n1", until=None))
    for node, phase in (("n2", Phase.READY), ("idle", Phase.STOPPED)):
        await seen.put(living(node, node=node, until=None, phase=phase))
    await bus.workers.put("n1", lease("n1"))
    await bus.workers.put("n2", lease("n2"))
    await until(lambda: len(records) == 3 and len(leases) == 2)
    clock.forward(2 * AFTER)
    assert await told() == []
    await bus.workers.delete("n1")
    await until(lambda: leases.value("n1") is None)
    assert await told() == []
    clock.forward(AFTER / 2)
    assert await told() == []
    clock.forward(AFTER / 2)
    assert await told() == ["n1"]
    assert await seen.command(kept) is None, "a node that is away may come back: nothing is asked because of it"
    assert records.value(kept.name) == kept
    clock.forward(10 * AFTER)
    assert await told() == ["n1"]
    await bus.workers.put("n1", lease("n1"))
    await until(lambda: leases.value("n1") is not None)
    assert await told() == ["n1"]
    await bus.workers.delete("n1")
    await until(lambda: leases.value("n1") is None)
    assert await told() == ["n1"]
    clock.forward(AFTER)
    assert await told() == ["n1", "n1"]


async def test_a_node_that_workers_share_is_lost_with_the_last_of_them(bus: Bus, seen: Seen) -> None:
    records, leases, clock = bus.start_table(bus.workspaces), bus.start_table(bus.workers), Hands()
    await asyncio.gather(records.synced(), leases.synced())
    workers = LostWorkers(bus, records, leases, clock, AFTER)
    await seen.put(living("a", node="n1", until=None))
    for replica in ("r1", "r2"):
        shared = lease("n1").model_copy(update={"replica": replica})
        await bus.workers.put(shared.key, shared)
    await until(lambda: len(records) == 1 and len(leases) == 2)

    async def told() -> int:
        await workers.look()
        clock.forward(AFTER)
        await workers.look()
        return len(await seen.events(EventKind.WORKER_LOST))

    assert await told() == 0
    await bus.workers.delete("n1.r1")
    await until(lambda: len(leases) == 1)
    assert await told() == 0
    await bus.workers.delete("n1.r2")
    await until(lambda: len(leases) == 0)
    assert await told() == 1


async def test_nobody_is_lost_while_the_bus_is_away(bus: Bus, seen: Seen, nats_server: NatsServer) -> None:
    records, leases, clock = bus.start_table(bus.workspaces), bus.start_table(bus.workers), Hands()
    await asyncio.gather(records.synced(), leases.synced())
    workers = LostWorkers(bus, records, leases, clock, AFTER)
    await seen.put(living(until=None))
    await bus.workers.put("n1", lease("n1"))
    await until(lambda: len(records) == 1 and len(leases) == 1)
    await nats_server.kill()
    await asyncio.sleep(0.2)
    clock.forward(10 * AFTER)
    await workers.look()
    await nats_server.start()
    await until(lambda: leases.is_live and leases.value("n1") is not None)
    await workers.look()
    assert await seen.events(EventKind.WORKER_LOST) == []
