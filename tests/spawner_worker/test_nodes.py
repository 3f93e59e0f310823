"""Several nodes of one pool: who takes whom, who comes back to his data, and what happens while a node is away."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.services import WorkerLease
from mlhub_shared.contracts.workspace import Phase, Reason, WorkspaceRecord, WorkspaceSpec
from mlhub_shared.errors import Permanent
from mlhub_spawner_worker import standing_in
from mlhub_spawner_worker.line import STEP
from tests.support.makers import NOW, delete, spawn, stop, workspace
from tests.support.nats_server import NatsServer
from tests.support.scripted_backend import ScriptedBackend
from tests.support.waiting import until_async
from tests.support.workers import People, working

PROFILES = """
profiles:
- {name: plain, image: plain}
- {name: a100, image: cuda, node_labels: {gpu: a100}}
- {name: shared, image: cuda, gpus_shared: true}
"""


def name(user: str) -> str:
    return workspace(user).name


class House:
    """A pool whose nodes a test starts and ends one by one."""

    def __init__(self, server: NatsServer, folder: Path) -> None:
        self._server, self._folder = server, folder
        self.backends: dict[str, ScriptedBackend] = {}
        self._up: dict[str, contextlib.AsyncExitStack] = {}
        self.profiles = folder / "profiles.yaml"
        self.profiles.write_text(PROFILES)

    async def start(
        self, node: str, *, gpus: tuple[str, ...] = (), counted: bool = False, cpus: float = 4, **settings: Any
    ) -> None:
        """Start the worker of a node; its backend is as its last worker left it."""
        backend = self.backends.setdefault(node, ScriptedBackend())
        backend.images_allowed, backend.gpus_allowed, backend.gpus_counted = True, counted or bool(gpus), counted
        backend.gpus, backend.cpu_total, backend.mem_total = gpus, cpus, 2**34
        life = self._up[node] = contextlib.AsyncExitStack()
        values = {"profiles_file": self.profiles} | settings
        await life.enter_async_context(working(self._server, self._folder / node, backend, node=node, **values))

    async def end(self, node: str) -> None:
        """End the worker of a node; what runs there runs on."""
        await self._up.pop(node).aclose()

    async def aclose(self) -> None:
        for node in list(self._up):
            await self.end(node)


@pytest.fixture
async def house(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[House]:
    async with contextlib.aclosing(House(nats_server, tmp_path)) as house:
        yield house


def asking(**fields: Any) -> WorkspaceSpec:
    return WorkspaceSpec(**({"profile": "plain", "image": "plain"} | fields))


async def is_up(bus: Bus, node: str) -> bool:
    return await bus.workers.get(node) is not None


async def are_up(bus: Bus, *nodes: str) -> None:
    """Wait until every worker knows of these: a lease is seen by all a moment after it is written."""
    for node in nodes:
        await until_async(lambda node=node: is_up(bus, node))  # type: ignore[misc]
    await asyncio.sleep(0.1)


def saying(words: str, *, phase: Phase = Phase.QUEUED) -> Callable[[WorkspaceRecord | None], bool]:
    return lambda record: record is not None and record.phase is phase and words in record.message


async def test_workspaces_spread_by_what_is_free(house: House, bus: Bus, people: People) -> None:
    await house.start("n1", cpus=4)
    await house.start("n2", cpus=4)
    await house.start("n3", cpus=8)
    await are_up(bus, "n1", "n2", "n3")
    users = [f"u{number}" for number in range(8)]
    for generation, user in enumerate(users, start=10):
        await people.send(spawn(user, generation=generation, spec=asking(cpu_limit=1)))
        await people.reaches(name(user), Phase.READY)
    nodes = Counter([(await people.reaches(name(user), Phase.READY)).node for user in users])
    assert nodes == {"n1": 2, "n2": 2, "n3": 4}
    lease = await bus.workers.get("n3")
    assert lease is not None
    assert (lease.value.cpu_granted, lease.value.cpu_total) == (4, 8)


async def test_a_burst_ends_up_ready_each_once_and_never_beyond_a_nodes_limit(
    house: House, bus: Bus, people: People
) -> None:
    for node in ("n1", "n2", "n3"):
        await house.start(node, cpu_capacity=2)
    await are_up(bus, "n1", "n2", "n3")
    users = [f"u{number}" for number in range(10)]
    await asyncio.gather(*(people.send(spawn(user, generation=10, spec=asking(cpu_limit=1))) for user in users))

    async def ready() -> list[str]:
        records = [await people.record(name(user)) for user in users]
        return [record.workspace.user for record in records if record is not None and record.phase is Phase.READY]

    async def full() -> bool:
        return len(await ready()) == 6

    await until_async(full)
    for user in await ready():
        await people.send(stop(user, generation=20))

    async def rest() -> bool:
        return len(await ready()) == 4

    await until_async(rest)
    assert all(backend.most_at_once <= 2 for backend in house.backends.values())
    assert sum(backend.calls["start", name(user)] for backend in house.backends.values() for user in users) == 10


async def test_a_best_node_that_died_a_moment_ago_blocks_nobody(house: House, bus: Bus, people: People) -> None:
    await house.start("n1")
    await are_up(bus, "n1")
    dead = WorkerLease(node="n0", pool="default", backend="scripted", cpu_total=64, mem_total=2**40, started_at=NOW)
    await bus.workers.put("n0", dead)
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await people.send(spawn(generation=10))
    assert (await people.reaches(name("alice"), Phase.READY)).node == "n1"
    assert STEP <= time.monotonic() - began < 10 * STEP


async def test_who_needs_a_label_waits_for_a_node_that_has_it_and_keeps_nobody_waiting(
    house: House, bus: Bus, people: People
) -> None:
    await house.start("n1", capacity=1)
    await people.send(spawn("ann", generation=10, spec=asking(profile="a100", image="cuda")))
    await people.reaches(name("ann"), saying("No node with label gpu=a100 is up"))
    await people.send(spawn("bob", generation=11))
    assert (await people.reaches(name("bob"), Phase.READY)).node == "n1"
    await house.start("n2", labels="zone=b, gpu=a100")
    assert (await people.reaches(name("ann"), Phase.READY)).node == "n2"


async def test_gpus_go_to_one_at_a_time_and_come_free_again(house: House, bus: Bus, people: People) -> None:
    await house.start("n1", gpus=("0", "1"))
    await house.start("n2")
    await are_up(bus, "n1", "n2")
    await people.send(spawn("ann", generation=10, spec=asking(gpus="0")))
    ann = await people.reaches(name("ann"), Phase.READY)
    assert (ann.node, ann.gpu_ids) == ("n1", ("0",))
    await people.send(spawn("bob", generation=11, spec=asking(gpus="all")))
    await people.reaches(name("bob"), saying("GPU 0 is in use"))
    await people.send(spawn("cid", generation=12, spec=asking(gpus="1")))
    await people.send(spawn("dan", generation=13, spec=asking(gpus="7")))
    refused = await people.reaches(name("dan"), Phase.FAILED)
    assert refused.reason is Reason.INVALID
    assert "no node with GPU 7" in refused.message

    async def one_is_free() -> bool:
        lease = await bus.workers.get("n1")
        return lease is not None and (lease.value.gpus, lease.value.gpus_free) == (("0", "1"), ("1",))

    await until_async(one_is_free)
    assert (await people.reaches(name("cid"), Phase.QUEUED)).node is None
    house.backends["n1"].die(name("ann"), 1)
    bob = await people.reaches(name("bob"), Phase.READY)
    assert bob.gpu_ids == ("0", "1")
    assert (await people.reaches(name("ann"), Phase.FAILED)).gpu_ids == ()
    await people.send(stop("bob", generation=20))
    assert (await people.reaches(name("cid"), Phase.READY)).gpu_ids == ("1",)
    assert (await people.reaches(name("bob"), Phase.STOPPED)).gpu_ids == ()


async def test_gpus_that_the_backend_counts_are_its_own_to_give(house: House, bus: Bus, people: People) -> None:
    await house.start("n1", counted=True, max_gpus=8, user_max_gpus=8)
    for user in ("ann", "bob"):
        await people.send(spawn(user, generation=10, spec=asking(gpus="count:8")))
        assert (await people.reaches(name(user), Phase.READY)).gpu_ids == ()
    await people.send(spawn("ann", "second", generation=11, spec=asking(gpus="count:1")))
    refused = await people.reaches(workspace("ann", "second").name, Phase.FAILED)
    assert refused.reason is Reason.INVALID
    assert "8 GPUs" in refused.message
    await people.send(spawn("cid", generation=12, spec=asking(gpus="0")))
    assert (await people.reaches(name("cid"), Phase.FAILED)).reason is Reason.INVALID
    lease = await bus.workers.get("n1")
    assert lease is not None
    assert (lease.value.gpus, lease.value.gpus_counted) == ((), True)


async def test_a_gpu_that_profiles_share_is_shared(house: House, people: People) -> None:
    await house.start("n1", gpus=("0",))
    for generation, user in enumerate(("ann", "bob"), start=10):
        shared = asking(profile="shared", image="cuda", gpus="0")
        await people.send(spawn(user, generation=generation, spec=shared))
        assert (await people.reaches(name(user), Phase.READY)).gpu_ids == ("0",)
    await people.send(spawn("cid", generation=12, spec=asking(gpus="0")))
    await people.reaches(name("cid"), saying("GPU 0 is in use"))


async def test_gpus_are_accounted_for_over_a_restart_of_the_worker(house: House, people: People) -> None:
    await house.start("n1", gpus=("0",))
    await people.send(spawn("ann", generation=10, spec=asking(gpus="0")))
    await people.reaches(name("ann"), Phase.READY)
    await house.end("n1")
    await house.start("n1", gpus=("0",))
    await people.send(spawn("bob", generation=11, spec=asking(gpus="0")))
    await people.reaches(name("bob"), saying("GPU 0 is in use"))


async def test_who_has_a_volume_returns_to_it_and_who_has_none_goes_where_there_is_room(
    house: House, bus: Bus, people: People
) -> None:
    await house.start("n1", capacity=2)
    for user, has_volume in (("ann", True), ("bob", False)):
        await people.send(spawn(user, generation=10, spec=asking(is_mount_volume=has_volume)))
        await people.reaches(name(user), Phase.READY)
        await people.send(stop(user, generation=11), node="n1")
        stopped = await people.reaches(name(user), Phase.STOPPED)
        assert (stopped.node, stopped.has_data) == (("n1", True) if has_volume else (None, False))
    lying_there = bus.subjects.command("default", name("bob"), "n1")
    assert await bus.connection.last(bus.subjects.commands, lying_there) is None
    for generation, user in enumerate(("cid", "dan"), start=20):
        await people.send(spawn(user, generation=generation))
        await people.reaches(name(user), Phase.READY)
    await house.start("n2")
    await are_up(bus, "n1", "n2")
    await people.send(spawn("bob", generation=30, spec=asking(is_mount_volume=False)))
    assert (await people.reaches(name("bob"), Phase.READY)).node == "n2"
    await people.send(spawn("ann", generation=31), node="n1")
    await people.reaches(name("ann"), saying("Waiting for room on node n1, where its data is"))
    await people.send(stop("cid", generation=32))
    assert (await people.reaches(name("ann"), Phase.READY)).node == "n1"


async def test_a_volume_once_made_binds_also_a_start_that_does_not_mount_it(house: House, people: People) -> None:
    await house.start("n1")
    for generation, has_volume in ((10, True), (20, False)):
        await people.send(spawn(generation=generation, spec=asking(is_mount_volume=has_volume)))
        await people.reaches(name("alice"), Phase.READY)
        await people.send(stop(generation=generation + 1))
        assert (await people.reaches(name("alice"), Phase.STOPPED)).node == "n1"


async def test_who_never_fits_is_refused_with_a_sentence(house: House, people: People) -> None:
    await house.start("n1", cpu_capacity=2, mem_capacity="4G")
    for user, fields, words in (("ann", {"cpu_limit": 3}, "2 cores"), ("bob", {"mem_limit": 2**33}, "4 GiB")):
        await people.send(spawn(user, generation=10, spec=asking(**fields)))
        refused = await people.reaches(name(user), Phase.FAILED)
        assert refused.reason is Reason.INVALID
        assert words in refused.message


async def test_a_node_that_is_away_keeps_what_it_has_and_does_what_was_asked_when_it_is_back(
    house: House, bus: Bus, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_in, "AWAY_AFTER", 0.5)
    await house.start("n1")
    for user in ("ann", "bob", "cid", "dan", "eve"):
        await people.send(spawn(user, generation=10))
        await people.reaches(name(user), Phase.READY)
    for user in ("cid", "dan"):
        await people.send(stop(user, generation=11), node="n1")
        await people.reaches(name(user), Phase.STOPPED)
    await house.start("n2")
    await are_up(bus, "n1", "n2")
    await house.end("n1")
    await people.send(stop("ann", generation=20), node="n1")
    await people.send(delete("bob", generation=20), node="n1")
    await people.send(spawn("cid", generation=20), node="n1")
    await people.send(spawn("dan", generation=20))
    away = "Node n1, where its data is, is away"
    await people.reaches(name("ann"), saying("it is stopped when the node is back", phase=Phase.STOPPING))
    await people.reaches(name("bob"), saying("it is deleted when the node is back", phase=Phase.STOPPING))
    await people.reaches(name("cid"), saying(away))
    await people.reaches(name("dan"), saying(away))
    await people.send(stop("dan", generation=21), node="n1")
    await people.reaches(name("dan"), Phase.STOPPED)
    await people.send(spawn("fay", generation=22))
    assert (await people.reaches(name("fay"), Phase.READY)).node == "n2"
    assert (await people.reaches(name("eve"), Phase.READY)).node == "n1", "away is not dead"
    assert house.backends["n1"].running() == {name("ann"), name("bob"), name("eve")}
    await house.start("n1")
    assert (await people.reaches(name("cid"), Phase.READY)).node == "n1"
    await people.reaches(name("ann"), Phase.STOPPED)
    await people.vanishes(name("bob"))
    assert (await people.reaches(name("dan"), Phase.STOPPED)).generation == 21
    assert house.backends["n1"].running() == {name("cid"), name("eve")}
    assert set(house.backends["n1"].scripts) == {name(user) for user in ("ann", "cid", "dan", "eve")}
    kinds = [event.kind for event in await people.history(name("bob"))]
    assert kinds.count(EventKind.WORKSPACE_DELETED) == 1


async def test_a_second_node_of_a_name_does_not_touch_what_the_first_one_runs(
    house: House, nats_server: NatsServer, tmp_path: Path, people: People
) -> None:
    await house.start("n1")
    await people.send(spawn("ann", generation=10))
    before = await people.reaches(name("ann"), Phase.READY)
    other = ScriptedBackend()
    with pytest.raises(Permanent, match="with data of its own, is the node n1"):
        async with working(nats_server, tmp_path / "elsewhere", other, node="n1"):
            pass
    assert await people.record(name("ann")) == before
    assert not other.is_called("start", name("ann"))


async def test_the_lease_of_a_node_that_died_is_waited_out_by_one_of_its_name_elsewhere(
    house: House, bus: Bus, people: People
) -> None:
    lease = WorkerLease(node="n1", identity="elsewhere", pool="default", backend="docker", started_at=NOW)
    await bus.workers.put("n1", lease, ttl=timedelta(seconds=2))
    await house.start("n1")
    await people.send(spawn("ann", generation=10))
    await people.reaches(name("ann"), Phase.READY)
    identities = []
    for _ in range(2):
        await are_up(bus, "n1")
        written = await bus.workers.get("n1")
        assert written is not None
        identities.append(written.value.identity)
        await house.end("n1")
        await house.start("n1")
    assert identities[0] == identities[1] not in ("", "elsewhere")


async def test_in_place_of_a_node_that_is_gone_for_good_comes_one_of_its_name(
    house: House, bus: Bus, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_in, "AWAY_AFTER", 0.5)
    await house.start("n1")
    await people.send(spawn("ann", generation=10))
    await people.reaches(name("ann"), Phase.READY)
    await house.end("n1")
    await house.start("n2")
    await people.send(delete("ann", generation=20), node="n1")
    await people.reaches(name("ann"), saying("it is deleted when the node is back", phase=Phase.STOPPING))
    del house.backends["n1"]
    await house.start("n1")
    await people.vanishes(name("ann"))
