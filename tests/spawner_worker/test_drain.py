"""Emptying a node: what it takes no more, what runs on, and who is told what."""

from pathlib import Path

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.queries import DRAIN_NODE, DrainNode
from mlhub_shared.contracts.services import WorkerLease
from mlhub_shared.contracts.workspace import Phase
from tests.support.makers import delete, spawn, stop, workspace
from tests.support.nats_server import NatsServer
from tests.support.scripted_backend import ScriptedBackend
from tests.support.waiting import until_async
from tests.support.workers import People, working

ANN, BOB, CID = (workspace(user).name for user in ("ann", "bob", "cid"))


async def drain(bus: Bus, *, draining: bool) -> WorkerLease:
    query = DrainNode(draining=draining, requester="user:admin", correlation_id="c1")
    return await bus.ask(DRAIN_NODE, query, WorkerLease, node="n1")


async def last_event(bus: Bus, kind: EventKind) -> tuple[Event, int] | None:
    raw = await bus.connection.last(bus.subjects.events, bus.subjects.event(kind))
    return (Event.model_validate_json(raw.data), raw.sequence) if raw else None


async def is_draining(bus: Bus, wanted: bool) -> None:
    async def told() -> bool:
        lease = await bus.workers.get("n1")
        return lease is not None and lease.value.draining is wanted

    await until_async(told)


async def ready_and_stopped(people: People) -> None:
    """Ann is up, Bob has been."""
    for user in ("ann", "bob"):
        await people.send(spawn(user, generation=10))
        await people.reaches(workspace(user).name, Phase.READY)
    await people.send(stop("bob", generation=11))
    await people.reaches(BOB, Phase.STOPPED)


async def test_a_node_that_is_emptied_takes_nobody_and_lets_run_what_runs(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, bus: Bus, people: People
) -> None:
    async with working(nats_server, tmp_path / "w1", scripted):
        await ready_and_stopped(people)
        assert (await drain(bus, draining=True)).draining
        await is_draining(bus, True)
        await people.send(spawn("bob", generation=20))
        waiting = await people.reaches(BOB, Phase.QUEUED)
        assert waiting.message.startswith("Node n1, where its data is, takes no workspaces now")
        await people.send(spawn("cid", generation=21))
        assert "takes workspaces now" in (await people.reaches(CID, Phase.QUEUED)).message
        async with working(nats_server, tmp_path / "w2", ScriptedBackend(), node="n2"):
            assert (await people.reaches(CID, Phase.READY)).node == "n2"
        assert (await people.reaches(ANN, Phase.READY)).generation == 10
        scripted.restart_host()
        again = await people.reaches(ANN, lambda r: r is not None and r.boot == scripted.boot)
        assert again.generation == 10, "what the host's restart ended is no new workspace"
        await people.send(stop("ann", generation=30))
        await people.reaches(ANN, Phase.STOPPED)
        await people.send(delete("ann", generation=31))
        await people.vanishes(ANN)
        assert (await people.reaches(BOB, Phase.QUEUED)).node == "n1"
        assert not (await drain(bus, draining=False)).draining
        assert (await people.reaches(BOB, Phase.READY)).node == "n1"


async def test_it_stays_so_over_a_restart_and_is_told_once(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, bus: Bus, people: People
) -> None:
    async with working(nats_server, tmp_path / "w1", scripted):
        await ready_and_stopped(people)
        await drain(bus, draining=True)
        told = await last_event(bus, EventKind.NODE_DRAINING)
        assert told is not None
        assert (told[0].requester, told[0].detail["node"]) == ("user:admin", "n1")
        await drain(bus, draining=True)
        assert await last_event(bus, EventKind.NODE_DRAINING) == told
    async with working(nats_server, tmp_path / "w1", scripted):
        await is_draining(bus, True)
        await people.send(spawn("bob", generation=20))
        await people.reaches(BOB, Phase.QUEUED)
        await drain(bus, draining=False)
        await people.reaches(BOB, Phase.READY)
        resumed = await last_event(bus, EventKind.NODE_RESUMED)
        assert resumed is not None
        assert resumed[0].correlation_id == "c1"
    async with working(nats_server, tmp_path / "w1", scripted):
        await is_draining(bus, False)
