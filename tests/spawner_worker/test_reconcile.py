"""A worker that comes back, to what runs, to what has died, and to a bus that has forgotten everything."""

import shutil
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.workspace import Phase, Reason, WorkspaceSpec
from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends.base import Found
from tests.support.makers import delete, record, spawn, stop, workspace
from tests.support.nats_server import NatsServer
from tests.support.scripted_backend import Script, ScriptedBackend
from tests.support.waiting import until, until_async
from tests.support.workers import People, never, working

ALICE = workspace().name


async def test_what_runs_is_adopted(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(spawn(generation=10))
        before = await people.reaches(ALICE, Phase.READY)
    async with working(nats_server, tmp_path / "w", scripted):
        assert await people.record(ALICE) == before
        scripted.die(ALICE, 1)
        await people.reaches(ALICE, Phase.FAILED, within=10)
    assert scripted.calls["start", ALICE] == 1
    assert EventKind.WORKSPACE_ADOPTED in [event.kind for event in await people.history(ALICE)]


async def test_a_trace_of_what_has_no_data_here_does_not_come_back_to_life(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    bob = workspace("bob")
    for target, has_data in ((workspace(), False), (bob, True)):
        left = record(target.user, phase=Phase.STOPPED, node="n1", has_data=has_data)
        scripted.scripts[left.name] = Script(left)
    async with working(nats_server, tmp_path / "w", scripted):
        assert await people.record(ALICE) is None
        await people.reaches(bob.name, Phase.STOPPED)
        assert not any(scripted.is_called("erase", left) for left in (ALICE, bob.name)), (
            "what is unclear is not removed"
        )


class Blind(ScriptedBackend):
    """Does not answer for a while, or shows less than there is."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = 0
        self.shows_nothing = False

    async def inventory(self) -> list[Found]:
        if self.fails > 0:
            self.fails -= 1
            raise Temporary("the engine does not answer")
        return [] if self.shows_nothing else await super().inventory()


@pytest.mark.parametrize(("fails", "shows_nothing"), [(3, False), (0, True)], ids=["away", "shows nothing"])
async def test_what_can_not_be_seen_is_not_taken_for_gone(
    nats_server: NatsServer, tmp_path: Path, people: People, fails: int, shows_nothing: bool
) -> None:
    backend, bob = Blind(), workspace("bob").name
    async with working(nats_server, tmp_path / "w", backend):
        for user in ("alice", "bob"):
            await people.send(spawn(user, generation=10))
            await people.reaches(workspace(user).name, Phase.READY)
        await people.send(stop("bob", generation=20))
        await people.reaches(bob, Phase.STOPPED)
        before = [await people.record(name) for name in (ALICE, bob)]
    backend.fails, backend.shows_nothing = fails, shows_nothing
    backend.calls.clear()
    async with working(nats_server, tmp_path / "w", backend):
        assert [await people.record(name) for name in (ALICE, bob)] == before
        assert backend.running() == {ALICE}
        assert not backend.is_called("stop", ALICE)
        assert not any(backend.is_called("erase", name) for name in (ALICE, bob))


async def test_a_start_in_flight_goes_on_under_the_same_generation(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted, probe=never):
        await people.send(spawn(generation=10))
        await people.send(spawn("bob", generation=10, spec=WorkspaceSpec(env={"FAKE_SLOW_PREPARE": "1"})))
        await people.reaches(ALICE, Phase.STARTING)
        await people.reaches(workspace("bob").name, Phase.PREPARING)
    async with working(nats_server, tmp_path / "w", scripted):
        ready = await people.reaches(ALICE, Phase.READY)
        assert ready.generation == 10
        await people.send(stop("bob", generation=20))
        await people.reaches(workspace("bob").name, Phase.STOPPED)
    assert scripted.calls["start", ALICE] == 1


async def test_a_stop_and_a_deletion_in_flight_are_finished(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    hangs = WorkspaceSpec(env={"FAKE_STOP_HANGS": "1"})
    bob = workspace("bob").name
    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(spawn(generation=10, spec=hangs))
        await people.send(spawn("bob", generation=10, spec=hangs))
        for name in (ALICE, bob):
            await people.reaches(name, Phase.READY)
        await people.send(stop(generation=20))
        await people.send(delete("bob", generation=20))
        for name in (ALICE, bob):
            await people.reaches(name, Phase.STOPPING)
            await until(partial(scripted.is_called, "stop", name))
    async with working(nats_server, tmp_path / "w", scripted):
        await people.reaches(ALICE, Phase.STOPPED)
        await people.vanishes(bob)
    assert set(scripted.scripts) == {ALICE}


async def test_what_died_while_no_worker_ran_has_failed(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(spawn(generation=10))
        await people.reaches(ALICE, Phase.READY)
    scripted.die(ALICE, None)
    async with working(nats_server, tmp_path / "w", scripted):
        assert (await people.reaches(ALICE, Phase.FAILED)).reason is Reason.EXITED


async def test_what_died_with_its_host_is_started_again_and_expires_as_before(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(spawn(generation=10, spec=WorkspaceSpec(lifetime=timedelta(hours=1))))
        before = await people.reaches(ALICE, Phase.READY)
    scripted.restart_host()
    async with working(nats_server, tmp_path / "w", scripted):
        again = await people.reaches(ALICE, lambda r: r is not None and r.boot == scripted.boot and bool(r.ready_at))
        assert (await people.reaches(ALICE, Phase.READY)).expires_at == before.expires_at
        assert (again.generation, scripted.calls["start", ALICE]) == (10, 2)


async def test_what_one_host_of_a_cluster_took_with_it_is_started_again(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(spawn(generation=10))
        before = await people.reaches(ALICE, Phase.READY)
        scripted.die(ALICE, None, Reason.EVICTED, "Its node was shut down", with_host=True)
        again = await people.reaches(ALICE, lambda r: bool(r and r.ready_at != before.ready_at))
        assert (again.generation, again.boot, scripted.calls["start", ALICE]) == (10, before.boot, 2)


async def test_what_should_not_run_here_is_stopped(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, bus: Bus, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        for user in ("alice", "bob"):
            await people.send(spawn(user, generation=10))
            await people.reaches(workspace(user).name, Phase.READY)
    await bus.workspaces.put(ALICE, record(phase=Phase.STOPPED, generation=20, node="n1"))
    await bus.workspaces.put(workspace("bob").name, record("bob", phase=Phase.READY, generation=20, node="n2"))
    async with working(nats_server, tmp_path / "w", scripted):
        assert scripted.running() == set()


async def test_a_worker_with_another_name_on_the_same_directory_keeps_what_it_had(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    bob = workspace("bob").name
    async with working(nats_server, tmp_path / "w", scripted):
        for user in ("alice", "bob"):
            await people.send(spawn(user, generation=10))
            await people.reaches(workspace(user).name, Phase.READY)
        await people.send(stop("bob", generation=20))
        await people.reaches(bob, Phase.STOPPED)
    async with working(nats_server, tmp_path / "w", scripted, node="renamed"):
        assert (await people.reaches(ALICE, Phase.READY)).node == "renamed"
        assert scripted.running() == {ALICE}
        await people.send(spawn("bob", generation=30), node="renamed")
        assert (await people.reaches(bob, Phase.READY)).node == "renamed"
    assert scripted.calls["start", ALICE] == 1


async def test_an_event_that_a_crash_swallowed_is_made_up_for(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, bus: Bus, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(spawn(generation=10))
        ready = await people.reaches(ALICE, Phase.READY)
    # As after a kill -9 between the record and its event.
    later = ready.phase_since + timedelta(seconds=1)
    await bus.workspaces.put(ALICE, ready.model_copy(update={"phase_since": later}))
    async with working(nats_server, tmp_path / "w", scripted):
        kinds = [EventKind.WORKSPACE_READY] * 2

        async def told() -> bool:
            events = await people.history(ALICE)
            return [event.kind for event in events if event.kind in kinds] == kinds

        await until_async(told)


async def test_a_lost_store_is_rebuilt_from_what_is_there(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    bob = workspace("bob").name
    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(spawn(generation=10, spec=WorkspaceSpec(lifetime=timedelta(hours=1))))
        before = await people.reaches(ALICE, Phase.READY)
        await people.send(spawn("bob", generation=11))
        await people.reaches(bob, Phase.READY)
        await people.send(stop("bob", generation=12))
        stopped = await people.reaches(bob, Phase.STOPPED)
    await nats_server.stop()
    shutil.rmtree(nats_server.folder / "store")
    await nats_server.start()
    async with working(nats_server, tmp_path / "w", scripted):
        assert await people.reaches(ALICE, Phase.READY) == before
        assert await people.reaches(bob, Phase.STOPPED) == stopped
        await people.send(stop(generation=20))
        await people.reaches(ALICE, Phase.STOPPED)
    assert scripted.calls["start", ALICE] == 1
    told = await people.bus.connection.last(
        people.bus.subjects.events, people.bus.subjects.event(EventKind.STORE_REBUILT)
    )
    assert told is not None


async def test_a_store_lost_under_a_running_worker_is_rebuilt_too(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(spawn(generation=10))
        before = await people.reaches(ALICE, Phase.READY)
        await nats_server.kill()
        shutil.rmtree(nats_server.folder / "store")
        await nats_server.start()
        assert await people.reaches(ALICE, Phase.READY, within=20) == before
        await people.send(stop(generation=20))
        await people.reaches(ALICE, Phase.STOPPED, within=20)
    assert scripted.calls["start", ALICE] == 1


async def test_the_bus_going_away_in_the_middle_loses_nothing(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        for generation, user in enumerate(("ann", "bob", "cid"), start=10):
            await people.send(spawn(user, generation=generation))
        await nats_server.kill()
        await nats_server.start()
        for user in ("ann", "bob", "cid"):
            await people.reaches(workspace(user).name, Phase.READY, within=20)
        scripted.die(workspace("ann").name, 1)
        await nats_server.kill()
        scripted.die(workspace("bob").name, 1)
        await nats_server.start()
        for user in ("ann", "bob"):
            await people.reaches(workspace(user).name, Phase.FAILED, within=20)
    assert all(scripted.calls["start", workspace(user).name] == 1 for user in ("ann", "bob", "cid"))
