"""The bus on three nats-servers that keep a copy each, one of which is killed."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from mlhub_shared.bus import Bus, BusSettings, Delivery
from mlhub_shared.bus.provision import streams
from mlhub_shared.contracts.commands import Command, StopWorkspace, decode_command
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.services import WorkerLease
from mlhub_shared.contracts.timers import Purpose, Timer
from mlhub_shared.contracts.workspace import Phase
from mlhub_shared.errors import BusUnavailable, Conflict
from mlhub_shared.tasks import end_tasks
from tests.conftest import bus_settings
from tests.support.makers import NOW, record, spawn, stop, workspace
from tests.support.nats_cluster import NatsCluster
from tests.support.nats_server import NatsServer
from tests.support.waiting import until, until_async

SOON = timedelta(seconds=30)
WRITERS = 4


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[NatsCluster]:
    cluster = await NatsCluster(tmp_path).start()
    yield cluster
    await cluster.stop()


@pytest.fixture
async def bus(cluster: NatsCluster) -> AsyncIterator[Bus]:
    bus = await Bus.open(cluster.settings())
    yield bus
    await bus.close()


async def leader(bus: Bus, stream: str) -> int:
    """Which server leads a stream."""
    info = await bus.connection.js.stream_info(stream)
    assert info.cluster is not None
    assert info.cluster.leader is not None
    return int(info.cluster.leader.removeprefix("n"))


async def copies(bus: Bus) -> set[int]:
    """How many of each stream there are, over all streams."""
    names = [config.name for config in streams(bus.subjects)]
    infos = [await bus.connection.js.stream_info(str(name)) for name in names]
    return {1 + len(info.cluster.replicas or ()) for info in infos if info.cluster is not None}


async def are_there(bus: Bus) -> bool:
    return await copies(bus) == {3}


async def test_a_cluster_does_what_one_server_does(bus: Bus, cluster: NatsCluster) -> None:
    assert await copies(bus) == {3}
    first = await bus.workspaces.create("a", record())
    with pytest.raises(Conflict):
        await bus.workspaces.create("a", record())
    await bus.workspaces.update("a", record(phase=Phase.STOPPED), last=first)
    with pytest.raises(Conflict):
        await bus.workspaces.update("a", record(), last=first)
    await bus.workspaces.delete("a")
    assert await bus.workspaces.get("a") is None
    await bus.workspaces.create("a", record(phase=Phase.QUEUED))

    assert await bus.send(spawn(generation=10), pool="default")
    assert await bus.send(stop(generation=20), pool="default")
    assert not await bus.send(spawn(generation=15), pool="default")
    found = await bus.last_command("default", workspace().name)
    assert found is not None
    assert isinstance(found[0], StopWorkspace)
    got: list[Command] = []

    async def handle(command: Command, _: Delivery) -> None:
        got.append(command)

    bus.consume(
        stream=bus.subjects.commands,
        durable="tests",
        filters=[bus.subjects.commands_of("default")],
        decode=decode_command,
        handler=handle,
    )
    await until(lambda: [command.generation for command in got] == [20])

    leases = bus.start_table(bus.workers)
    lease = WorkerLease(node="n", pool="default", backend="process", capacity=1, running=0, version="1", started_at=NOW)
    await bus.workers.put("n", lease, ttl=timedelta(seconds=1))
    await until(lambda: leases.value("n") is not None)
    await until(lambda: leases.value("n") is None)

    timer = Timer(workspace=workspace(), generation=1, purpose=Purpose.WARN, expires_at=NOW, requester="t")
    await bus.timers.arm(timer.purpose, workspace().name, datetime.now(UTC), timer)
    due = bus.subjects.due(timer.purpose, workspace().name)

    async def has_fired() -> bool:
        return await bus.connection.last(bus.subjects.timers, due) is not None

    await until_async(has_fired)


async def test_a_read_sees_every_write_that_was_taken(bus: Bus, cluster: NatsCluster) -> None:
    """Whichever server is asked: a decision on an old record would be a wrong one."""
    others = [await Bus.open(cluster.settings(first=number)) for number in range(3)]
    try:
        for generation in range(1, 200):
            revision = await bus.workspaces.put("a", record(generation=generation))
            entries = await asyncio.gather(*(other.workspaces.get("a") for other in others))
            assert [entry and entry.revision for entry in entries] == [revision] * 3, generation
    finally:
        for other in others:
            await other.close()


async def test_nothing_that_was_taken_is_lost_with_a_server(bus: Bus, cluster: NatsCluster) -> None:
    table = bus.start_table(bus.workspaces)
    await table.synced(SOON)
    taken: dict[str, int] = {}
    told: list[str] = []
    ending = asyncio.Event()

    async def write(key: str) -> None:
        generation = 0
        while not ending.is_set():
            generation += 1
            try:
                await bus.workspaces.put(key, record(generation=generation), patience=SOON)
                taken[key] = generation
                event = Event(kind=EventKind.USER_LOGGED_IN, requester=key)
                await bus.emit(event, patience=SOON)
            except BusUnavailable:  # pragma: no cover
                pytest.fail("a cluster of two must take it")
            told.append(event.id)

    writers = [asyncio.ensure_future(write(f"w{number}")) for number in range(WRITERS)]
    await until(lambda: len(told) > 100)
    dead = cluster.servers[await leader(bus, bus.workspaces.stream)]
    await dead.kill()
    before = len(told)
    await until(lambda: len(told) > before + 200)
    await dead.start()
    before = len(told)
    await until(lambda: len(told) > before + 100)
    ending.set()
    await asyncio.gather(*writers)

    for key, generation in taken.items():
        entry = await bus.workspaces.get(key)
        assert entry is not None
        assert entry.value.generation == generation
        await table.wait(key, lambda seen, wanted=entry: seen == wanted, timeout=SOON)  # type: ignore[misc]
    kept = [event.id async for event in bus.past_events(EventKind.USER_LOGGED_IN)]
    assert sorted(kept) == sorted(told), "each once"


async def test_a_service_starts_while_a_server_is_away(bus: Bus, cluster: NatsCluster) -> None:
    await bus.workspaces.put("a", record())
    await cluster.servers[0].kill()
    late = await asyncio.wait_for(Bus.open(cluster.settings()), 30)
    try:
        assert await late.workspaces.get("a") is not None
        await late.workspaces.put("b", record())
    finally:
        await late.close()


async def test_what_there_is_gets_its_copies(cluster: NatsCluster) -> None:
    alone = await Bus.open(cluster.settings(replicas=1))
    await alone.workspaces.put("a", record(generation=7))
    assert await copies(alone) == {1}
    await alone.close()
    bus = await Bus.open(cluster.settings(replicas=3))
    try:
        entry = await bus.workspaces.get("a")
        assert entry is not None
        assert entry.value.generation == 7
        await until_async(lambda: are_there(bus))
    finally:
        await bus.close()


@asynccontextmanager
async def opening(settings: BusSettings) -> AsyncIterator["tuple[asyncio.Task[Bus], list[str]]"]:
    """A bus that is being opened, and why it is not open yet."""
    why: list[str] = []

    def note(_: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if line["event"] == "bus.not_provisioned":
            why.append(line["error"])
        return line

    before = structlog.get_config()["processors"]
    structlog.configure(processors=[note, *before])
    task = asyncio.ensure_future(Bus.open(settings))
    try:
        yield task, why
    finally:
        structlog.configure(processors=before)
        await end_tasks(task)


async def test_a_server_without_a_cluster_is_told(nats_server: NatsServer) -> None:
    async with opening(bus_settings(nats_server, replicas=3)) as (task, why):
        await until(lambda: "MLHUB_NATS_REPLICAS is 3, but the NATS server is not in a cluster" in why)
        assert not task.done()


async def test_more_copies_than_servers_are_told(cluster: NatsCluster) -> None:
    async with opening(cluster.settings(replicas=5)) as (task, why):
        await until(lambda: any("MLHUB_NATS_REPLICAS is 5, but not as many" in one for one in why))
        assert not task.done()


async def test_servers_that_come_late_are_waited_for(tmp_path: Path) -> None:
    cluster = NatsCluster(tmp_path)
    await asyncio.gather(*(server.start() for server in cluster.servers[:2]))
    try:
        async with opening(cluster.settings()) as (task, why):
            await until(lambda: bool(why))
            await cluster.servers[2].start()
            bus = await asyncio.wait_for(task, 40)
            assert await copies(bus) == {3}
            await bus.close()
    finally:
        await cluster.stop()
