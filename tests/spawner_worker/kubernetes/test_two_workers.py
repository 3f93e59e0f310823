"""Two workers on one cluster, each with its own view of it."""

import asyncio
from pathlib import Path

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.workspace import Phase
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
