"""A full house: who waits, who comes next, and that nothing shakes the order."""

import contextlib
from pathlib import Path

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.services import WorkerLease
from mlhub_shared.contracts.workspace import Phase, Reason, WorkspaceSecrets, queue_positions
from tests.support.makers import delete, record, spawn, stop, workspace
from tests.support.nats_server import NatsServer
from tests.support.scripted_backend import ScriptedBackend
from tests.support.waiting import until_async
from tests.support.workers import People, working

USERS = ("ann", "bob", "cid", "dan", "eve")
NAMES = {user: workspace(user).name for user in USERS}


async def fill(people: People, *, room: int) -> None:
    """Five spawns, one after the other, of which `room` get ready."""
    for generation, user in enumerate(USERS, start=10):
        await people.send(spawn(user, generation=generation))
        await people.reaches(NAMES[user], Phase.READY if generation - 10 < room else Phase.QUEUED)


async def positions(people: People) -> dict[str, int]:
    """Place in line by user."""
    records = [record for user in USERS if (record := await people.record(NAMES[user])) is not None]
    return {user: place for user in USERS if (place := queue_positions(records).get(NAMES[user])) is not None}


async def test_a_full_house_queues_in_order_and_moves_up(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted, capacity=2):
        await fill(people, room=2)
        assert await positions(people) == {"cid": 1, "dan": 2, "eve": 3}
        await people.send(stop("ann", generation=20))
        await people.reaches(NAMES["cid"], Phase.READY)
        assert await positions(people) == {"dan": 1, "eve": 2}
        scripted.die(NAMES["bob"], 1)
        await people.reaches(NAMES["dan"], Phase.READY)
        await people.send(delete("cid", generation=30))
        await people.reaches(NAMES["eve"], Phase.READY)
        assert scripted.most_at_once == 2
    events = [event.kind for event in await people.history(NAMES["dan"])]
    assert events.count(EventKind.WORKSPACE_QUEUED) == 1
    assert events[0] is EventKind.WORKSPACE_QUEUED


async def test_a_full_house_can_be_told_to_stop_what_waits(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted, capacity=2):
        await fill(people, room=2)
        await people.send(stop("cid", generation=20))
        stopped = await people.reaches(NAMES["cid"], Phase.STOPPED, within=10)
        assert stopped.reason is Reason.ASKED
        assert await positions(people) == {"dan": 1, "eve": 2}
        await people.send(delete("dan", generation=20))
        await people.vanishes(NAMES["dan"])
        assert await positions(people) == {"eve": 1}


async def test_asking_again_keeps_the_place_in_line(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted, capacity=2):
        await fill(people, room=2)
        await people.send(spawn("cid", generation=99))
        await people.reaches(NAMES["cid"], lambda r: r is not None and r.generation == 99)
        assert await positions(people) == {"cid": 1, "dan": 2, "eve": 3}


async def test_the_order_survives_the_worker_and_the_bus(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted, capacity=2):
        await fill(people, room=2)
    async with working(nats_server, tmp_path / "w", scripted, capacity=2):
        assert await positions(people) == {"cid": 1, "dan": 2, "eve": 3}
        await nats_server.kill()
        await nats_server.start()
        assert await positions(people) == {"cid": 1, "dan": 2, "eve": 3}
        await people.send(stop("ann", generation=20))
        await people.reaches(NAMES["cid"], Phase.READY)
        assert await positions(people) == {"dan": 1, "eve": 2}
        await people.send(stop("bob", generation=20))
        await people.reaches(NAMES["dan"], Phase.READY)
    assert [scripted.calls["start", NAMES[user]] for user in USERS] == [1, 1, 1, 1, 0]


async def test_a_second_worker_of_the_pool_takes_what_waits_but_not_what_belongs_to_the_first(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    elsewhere = ScriptedBackend()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(working(nats_server, tmp_path / "w1", scripted, capacity=1))
        await people.send(spawn("ann", generation=10))
        await people.reaches(NAMES["ann"], Phase.READY)
        await people.send(stop("ann", generation=11))
        await people.reaches(NAMES["ann"], Phase.STOPPED)
        await people.send(spawn("bob", generation=12))
        await people.reaches(NAMES["bob"], Phase.READY)
        await people.send(spawn("ann", generation=13))
        await people.send(spawn("cid", generation=14))
        await people.reaches(NAMES["ann"], Phase.QUEUED)
        await people.reaches(NAMES["cid"], Phase.QUEUED)
        await stack.enter_async_context(working(nats_server, tmp_path / "w2", elsewhere, node="n2", capacity=1))
        taken = await people.reaches(NAMES["cid"], Phase.READY)
        assert taken.node == "n2"
        assert (await people.reaches(NAMES["ann"], Phase.QUEUED)).node == "n1"


async def test_a_worker_that_ends_claims_nobody_though_its_backend_takes_its_time(
    nats_server: NatsServer, tmp_path: Path, bus: Bus, people: People
) -> None:
    other = ScriptedBackend()
    async with working(nats_server, tmp_path / "1", ScriptedBackend(), node="n1", capacity=9) as ending:
        await ending.aclose()
        waiting = record("ann", phase=Phase.QUEUED, generation=10, has_data=False)
        await bus.secrets.put(waiting.name, WorkspaceSecrets(generation=10))
        await bus.workspaces.create(waiting.name, waiting)
        async with working(nats_server, tmp_path / "2", other, node="n2", capacity=1):
            # Which n1 would have taken, as it has more room.
            assert (await people.reaches(waiting.name, Phase.READY, within=30)).node == "n2"


async def test_the_lease_counts_what_runs(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, bus: Bus, people: People
) -> None:
    async def lease() -> WorkerLease | None:
        entry = await bus.workers.get("n1")
        return entry.value if entry else None

    async with working(nats_server, tmp_path / "w", scripted, capacity=2):
        await people.send(spawn(generation=10))

        async def counted() -> bool:
            found = await lease()
            return found is not None and (found.running, found.capacity, found.pool) == (1, 2, "default")

        await until_async(counted)
        found = await lease()
        assert found is not None
        assert found.attach is not None

    async def gone() -> bool:
        return await lease() is None

    await until_async(gone)
