"""Workers that share a node: each acts for its part, all of them together as one would, whoever dies."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from mlhub_shared.bus import Bus, lease
from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.queries import (
    DESCRIBE_WORKSPACE,
    DRAIN_NODE,
    RESOLVE_TARGET,
    DescribeWorkspace,
    DrainNode,
    ResolveTarget,
    Target,
    WorkspaceDescription,
)
from mlhub_shared.contracts.services import WorkerLease
from mlhub_shared.contracts.workspace import Phase
from mlhub_shared.errors import Permanent
from mlhub_spawner_worker.siblings import owner
from tests.support.makers import delete, spawn, stop, workspace
from tests.support.nats_server import NatsServer
from tests.support.replicas import NODE, Replicas, on_one, replicas
from tests.support.scripted_backend import ScriptedBackend
from tests.support.waiting import until, until_async
from tests.support.workers import People

NAMES = [f"ws-u{number}-hub" for number in range(3000)]
USERS = [f"u{number}" for number in range(12)]


def name(user: str) -> str:
    return workspace(user).name


def owned_by(replica: str, *others: str) -> str:
    """A user whose workspace is that one's to act for."""
    users = (f"user{number}" for number in range(1000))
    return next(user for user in users if owner(name(user), (replica, *others)) == replica)


@pytest.fixture
async def crew(nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, bus: Bus) -> AsyncIterator[Replicas]:
    async with replicas(nats_server, tmp_path, on_one(scripted), bus) as crew:
        yield crew


def test_the_names_are_spread_and_one_that_goes_moves_only_its_own() -> None:
    before = {name: owner(name, ["a", "b", "c"]) for name in NAMES}
    after = {name: owner(name, ["c", "a"]) for name in NAMES}
    assert {before[name] for name in NAMES if before[name] != after[name]} == {"b"}
    counts = [list(before.values()).count(replica) for replica in "abc"]
    assert min(counts) > 0.9 * len(NAMES) / 3


async def test_all_of_them_work_and_each_workspace_is_started_once_and_driven_by_one(
    crew: Replicas, people: People, scripted: ScriptedBackend
) -> None:
    await crew.start("r1", "r2", "r3")
    await asyncio.gather(*(people.send(spawn(user, generation=10)) for user in USERS))
    for user in USERS:
        assert (await people.reaches(name(user), Phase.READY)).node == NODE
    await crew.share(*map(name, USERS))
    assert all(replica.drives() for replica in crew.up.values())
    assert {scripted.calls["start", name(user)] for user in USERS} == {1}
    for user in USERS[:6]:
        await people.send(stop(user, generation=20), node=NODE)
    for user in USERS[:6]:
        await people.reaches(name(user), Phase.STOPPED)
    assert scripted.running() == set(map(name, USERS[6:]))
    kinds = [event.kind for user in USERS for event in await people.history(name(user))]
    assert kinds.count(EventKind.WORKSPACE_READY) == 12, "nothing is told twice"
    assert kinds.count(EventKind.WORKSPACE_STOPPED) == 6


@pytest.mark.parametrize("call", ["prepare", "start"])
async def test_a_spawn_of_one_that_is_killed_is_finished_by_another(
    crew: Replicas, people: People, scripted: ScriptedBackend, call: str
) -> None:
    await crew.start("r1", "r2")
    user = owned_by("r1", "r2")
    scripted.held.add((call, name(user)))
    await people.send(spawn(user, generation=10))
    await until(lambda: scripted.asked[call, name(user)] == 1)
    await crew.kill("r1")
    await until(lambda: scripted.asked[call, name(user)] == 2)
    scripted.held.clear()
    assert (await people.reaches(name(user), Phase.READY)).generation == 10
    assert scripted.calls["start", name(user)] == 1


@pytest.mark.parametrize(("call", "is_deletion"), [("stop", False), ("stop", True), ("erase", True)])
async def test_a_stop_or_deletion_of_one_that_is_killed_is_finished_by_another(
    crew: Replicas, people: People, scripted: ScriptedBackend, call: str, is_deletion: bool
) -> None:
    await crew.start("r1", "r2")
    user = owned_by("r1", "r2")
    await people.send(spawn(user, generation=10))
    await people.reaches(name(user), Phase.READY)
    scripted.held.add((call, name(user)))
    await people.send((delete if is_deletion else stop)(user, generation=20))
    await until(lambda: scripted.asked[call, name(user)] == 1)
    await crew.kill("r1")
    await until(lambda: scripted.asked[call, name(user)] == 2)
    scripted.held.clear()
    if is_deletion:
        await people.vanishes(name(user))
        assert name(user) not in scripted.scripts
        kinds = [event.kind for event in await people.history(name(user))]
        assert kinds.count(EventKind.WORKSPACE_DELETED) == 1
    else:
        await people.reaches(name(user), Phase.STOPPED)
        assert not scripted.running()


async def test_what_runs_changes_hands_without_a_word_and_its_death_is_noticed_by_whoever_has_it(
    crew: Replicas, people: People, scripted: ScriptedBackend
) -> None:
    await crew.start("r1", "r2")
    for user in USERS:
        await people.send(spawn(user, generation=10))
        await people.reaches(name(user), Phase.READY)
    await crew.share(*map(name, USERS))
    left, dying = crew.up["r2"].drives(), sorted(crew.up["r1"].drives())
    before = [await people.record(name(user)) for user in USERS]
    await crew.end("r1")
    await crew.share(*map(name, USERS))
    assert crew.up["r2"].drives() > left
    await crew.start("r1")
    await crew.share(*map(name, USERS))
    assert crew.up["r2"].drives() == left
    assert [await people.record(name(user)) for user in USERS] == before
    assert not any(scripted.is_called("stop", name(user)) for user in USERS)
    await crew.kill("r1")
    scripted.die(dying[0], 1)
    assert "exit code 1" in (await people.reaches(dying[0], Phase.FAILED)).message


async def test_one_that_comes_back_under_its_name_has_its_part_again(
    crew: Replicas, people: People, scripted: ScriptedBackend
) -> None:
    await crew.start("r1", "r2")
    user = owned_by("r1", "r2")
    scripted.held.add(("prepare", name(user)))
    await people.send(spawn(user, generation=10))
    await until(lambda: scripted.asked["prepare", name(user)] == 1)
    await crew.kill("r1", is_noticed=False)
    await crew.start("r1")
    await until(lambda: scripted.asked["prepare", name(user)] == 2)
    assert name(user) in crew.up["r1"].drives()
    scripted.held.clear()
    await people.reaches(name(user), Phase.READY)
    assert scripted.calls["start", name(user)] == 1


async def test_the_line_is_served_by_one_and_by_another_when_that_one_dies(
    crew: Replicas, people: People, scripted: ScriptedBackend
) -> None:
    await crew.start("r1", "r2", "r3", capacity=3)
    await asyncio.gather(*(people.send(spawn(user, generation=10)) for user in USERS))

    async def ready() -> list[str]:
        records = [await people.record(name(user)) for user in USERS]
        return [record.workspace.user for record in records if record is not None and record.phase is Phase.READY]

    async def full() -> bool:
        return len(await ready()) == 3

    await until_async(full)
    rest = 12
    while len(crew.up) > 1:
        [leader] = [name for name, replica in crew.up.items() if replica.worker.siblings.leads]
        await crew.kill(leader)
        for user in await ready():
            await people.send(delete(user, generation=20), node=NODE)
            await people.vanishes(name(user))
        await until_async(full)
        rest -= 3
    assert rest == 6
    assert scripted.most_at_once == 3
    assert all(scripted.calls["start", name(user)] <= 1 for user in USERS)


async def test_all_of_them_are_emptied_together_and_stay_so(
    crew: Replicas, bus: Bus, people: People, nats_server: NatsServer
) -> None:
    async def drain(*, draining: bool) -> None:
        query = DrainNode(draining=draining, requester="user:admin", correlation_id="c1")
        answer = await bus.ask(DRAIN_NODE, query, WorkerLease, node=NODE)
        assert answer.draining is draining

    async def all_say(draining: bool) -> bool:
        return [lease.draining for lease in await crew.leases()] == [draining] * len(crew.up)

    await crew.start("r1", "r2")
    await drain(draining=True)
    await until_async(partial(all_say, True))
    await people.send(spawn("ann", generation=10))
    assert "takes workspaces now" in (await people.reaches(name("ann"), Phase.QUEUED)).message
    await crew.end("r1")
    await crew.kill("r2")
    await crew.start("r3", "r4")
    await until_async(partial(all_say, True))
    async with crew.bus_away():
        shutil.rmtree(nats_server.folder / "store")
    await until_async(partial(all_say, True))
    await crew.start("r5")
    assert await all_say(True), "also one that could have it from the bus alone"
    await drain(draining=False)
    await until_async(partial(all_say, False))
    await people.send(spawn("ann", generation=20))
    await people.reaches(name("ann"), Phase.READY)


async def test_one_that_is_cut_off_from_the_bus_starts_nothing_a_second_time(
    crew: Replicas, people: People, scripted: ScriptedBackend
) -> None:
    await crew.start("r1", "r2")
    going = owned_by("r1", "r2")
    ending = next(user for user in USERS if owner(name(user), ("r1", "r2")) == "r1" and user != going)
    for user in (going, ending):
        scripted.held.add(("start", name(user)))
        await people.send(spawn(user, generation=10))
        await until(partial(scripted.asked.__contains__, ("start", name(user))))
    cut_off = crew.up["r1"]
    await cut_off.way.cut()
    await crew.expire("r1")
    await until(lambda: scripted.asked["start", name(going)] == scripted.asked["start", name(ending)] == 2)
    assert cut_off.drives() == {name(going), name(ending)}, "it can't know yet"
    await people.send(stop(ending, generation=20), node=NODE)
    await people.reaches(name(ending), Phase.STOPPED)
    scripted.held.clear()
    await people.reaches(name(going), Phase.READY)
    await until(lambda: name(ending) in scripted.running())  # By the one that does not know.
    await cut_off.way.mend()
    await crew.count("r1", "r2")
    await until(lambda: scripted.running() == {name(going)})
    await crew.share(name(going))
    assert (await people.reaches(name(ending), Phase.STOPPED)).generation == 20
    assert scripted.calls["start", name(going)] == 1


async def test_one_that_is_cut_off_for_long_stops_acting_before_the_others_take_over(
    crew: Replicas, people: People, scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await crew.start("r1", "r2")
    user = owned_by("r1", "r2")
    await people.send(spawn(user, generation=10))
    await people.reaches(name(user), Phase.READY)
    await crew.share(name(user))
    cut_off = crew.up["r1"]
    await cut_off.way.cut()
    assert lease.CERTAIN < lease.TTL
    monkeypatch.setattr(lease, "CERTAIN", lease.CERTAIN / 4)
    await until(lambda: not cut_off.drives(), within=10)
    assert not scripted.is_called("stop", name(user))
    monkeypatch.undo()
    await cut_off.way.mend()
    await crew.count("r1", "r2")
    await crew.share(name(user))
    assert cut_off.drives() == {name(user)}


async def test_a_store_that_is_lost_is_built_again_once(
    crew: Replicas, nats_server: NatsServer, bus: Bus, people: People, scripted: ScriptedBackend
) -> None:
    await crew.start("r1", "r2")
    for user in USERS:
        await people.send(spawn(user, generation=10))
        await people.reaches(name(user), Phase.READY)
    async with crew.bus_away():
        shutil.rmtree(nats_server.folder / "store")
    for user in USERS:
        assert (await people.reaches(name(user), Phase.READY)).generation == 10
    await crew.count("r1", "r2")
    await crew.share(*map(name, USERS))
    told = [event async for event in bus.past_events(EventKind.STORE_REBUILT)]
    assert sum(int(event.detail["workspaces"] or 0) for event in told) == len(USERS), "by one of them"
    assert {scripted.calls["start", name(user)] for user in USERS} == {1}


async def test_who_has_another_cluster_is_no_sibling(
    crew: Replicas, bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    await crew.start("r1")
    backend = ScriptedBackend()
    async with replicas(nats_server, tmp_path / "elsewhere", lambda: backend, bus) as others:
        backend.cluster = "another-cluster"
        with pytest.raises(Permanent, match=f"is the node {NODE}"):
            await others.start("r2")
        assert not others.up


async def test_who_has_the_name_of_a_replica_that_lives_is_refused(
    crew: Replicas, bus: Bus, nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend
) -> None:
    await crew.start("r1")
    async with replicas(nats_server, tmp_path / "elsewhere", on_one(scripted), bus) as others:
        with pytest.raises(Permanent, match=f"is the replica r1 of the node {NODE}"):
            await others.start_one("r1")
    await crew.kill("r1", is_noticed=False)
    async with asyncio.timeout(lease.TTL.total_seconds() / 3):
        await crew.start_one("r1")  # Its own lease from before is nobody else's.


async def test_whoever_is_asked_answers_for_the_node(
    crew: Replicas, bus: Bus, people: People, scripted: ScriptedBackend
) -> None:
    await crew.start("r1", "r2")
    await people.send(spawn("ann", generation=10))
    await people.reaches(name("ann"), Phase.READY)
    for _ in range(2):
        own = {lease.replica: lease.attach for lease in await crew.leases()}
        for _ in range(8):
            asked = ResolveTarget(workspace=workspace("ann"))
            target = await bus.ask(RESOLVE_TARGET, asked, Target)
            assert target.attach is not None
            assert target.attach in own.values(), "of one that lives"
            describe = DescribeWorkspace(workspace=workspace("ann"))
            assert (await bus.ask(DESCRIBE_WORKSPACE, describe, WorkspaceDescription, node=NODE)).running
        if "r2" in crew.up:
            await crew.kill("r2")


async def test_there_is_one_capacity_and_all_of_them_tell_it(crew: Replicas, people: People) -> None:
    await crew.start("r1", "r2", capacity=2)
    for user in USERS[:3]:
        await people.send(spawn(user, generation=10))
    for user in USERS[:2]:
        await people.reaches(name(user), Phase.READY)
    assert (await people.reaches(name(USERS[2]), Phase.QUEUED)).message == "Waiting for room"

    async def both_know() -> bool:
        return [(lease.running, lease.capacity) for lease in await crew.leases()] == [(2, 2), (2, 2)]

    await until_async(both_know, within=3)
