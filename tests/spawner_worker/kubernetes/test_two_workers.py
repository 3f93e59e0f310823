"""Two workers on one cluster, each with its own view of it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord
from tests.spawner_worker.kubernetes.conftest import Stand
from tests.support.makers import delete, spawn, workspace
from tests.support.nats_server import NatsServer
from tests.support.replicas import NODE, replicas
from tests.support.waiting import until
from tests.support.workers import People

USERS = [f"u{number}" for number in range(8)]


async def test_one_of_two_is_killed_in_the_middle_of_all_that_both_have_begun(
    stand: Stand, nats_server: NatsServer, tmp_path: Path, bus: Bus, people: People
) -> None:
    async with replicas(nats_server, tmp_path, stand.made, bus) as crew:
        await crew.start("r1", "r2")
        await asyncio.gather(*(people.send(spawn(user, generation=10)) for user in USERS))
        await until(lambda: stand.cluster.writes["create", "pods"] >= 2)
        await crew.kill("r1")
        ready = [await people.reaches(workspace(user).name, Phase.READY) for user in USERS]
        assert {(record.node, record.generation) for record in ready} == {(NODE, 10)}
        assert len(stand.left()["pods"]) == len(USERS)
        assert stand.cluster.writes["delete", "pods"] == 0, "what the other had begun is gone on with"
        await crew.start("r1")
        await asyncio.gather(*(people.send(delete(user, generation=20), node=NODE) for user in USERS))
        await until(lambda: stand.cluster.writes["delete", "pods"] >= 2)
        await crew.kill("r2")
        for user in USERS:
            await people.vanishes(workspace(user).name)
        await until(lambda: not stand.left())


async def test_what_a_node_has_taken_with_it_is_ready_again_under_the_same_generation(
    stand: Stand, nats_server: NatsServer, tmp_path: Path, bus: Bus, people: People
) -> None:
    names = [workspace(user).name for user in USERS[:3]]
    async with replicas(nats_server, tmp_path, stand.made, bus) as crew:
        await crew.start("r1", "r2")
        for user in USERS[:3]:
            await people.send(spawn(user, generation=10))
        before = [await people.reaches(name, Phase.READY) for name in names]
        stand.cluster.kubelet.restart_node()
        for name, first in zip(names, before, strict=True):
            assert (await people.reaches(name, ready_after(first))).generation == 10
        assert stand.left()["pods"] == names
        assert stand.cluster.writes["create", "pods"] == 2 * len(names), "nothing is started twice"
        for user in USERS[:3]:
            await people.send(delete(user, generation=20), node=NODE)
        for name in names:
            await people.vanishes(name)
        await until(lambda: not stand.left())


def ready_after(first: WorkspaceRecord) -> Callable[[WorkspaceRecord | None], bool]:
    """Once more."""
    return lambda now: now is not None and now.phase is Phase.READY and now.ready_at != first.ready_at
