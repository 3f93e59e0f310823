"""A worker that is frozen in the middle of a start and a deletion, past its lease, and then goes on where it was."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from pathlib import Path

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.workspace import Phase
from mlhub_spawner_worker.siblings import owner
from tests.spawner_worker.kubernetes.conftest import HUB, KINDS, Stand
from tests.support.kube_backend import rules
from tests.support.makers import delete, spawn, workspace
from tests.support.nats_server import PASSWORD, USER, NatsServer
from tests.support.replicas import NODE, replicas
from tests.support.waiting import until
from tests.support.workers import People

FROZEN, OTHER = "r1", "r2"


@contextlib.asynccontextmanager
async def process(stand: Stand, server: NatsServer, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker as it is deployed."""
    prefix = "MLHUB_SPAWNER_WORKER_"
    environment = {
        "PATH": os.environ["PATH"],
        "MLHUB_HUB_NAME": HUB,
        "MLHUB_NATS_URL": server.url,
        "MLHUB_NATS_USER": USER,
        "MLHUB_NATS_PASSWORD": PASSWORD,
        f"{prefix}BACKEND": "kubernetes",
        f"{prefix}KUBECONFIG": str(stand.cluster.kubeconfig(folder / "its-kubeconfig", stand.cluster.token(rules()))),
        f"{prefix}NODE": NODE,
        f"{prefix}REPLICA": FROZEN,
        f"{prefix}DATA_DIR": str(folder / "data"),
        f"{prefix}STOP_GRACE": "2",
    }
    command = (sys.executable, "-m", "mlhub_spawner_worker")
    worker = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=DEVNULL, env=environment)
    try:
        yield worker
    finally:
        worker.kill()
        await worker.wait()


async def test_a_worker_that_was_frozen_past_its_lease_touches_nothing_that_has_begun_since(
    stand: Stand, nats_server: NatsServer, tmp_path: Path, bus: Bus, people: People
) -> None:
    user = next(user for user in map(str, range(30)) if owner(workspace(user).name, (FROZEN, OTHER)) == FROZEN)
    name = workspace(user).name
    async with (
        replicas(nats_server, tmp_path, stand.made, bus) as crew,
        process(stand, nats_server, tmp_path) as frozen,
    ):
        await crew.start_one(OTHER)
        other = crew.up[OTHER].worker
        await until(lambda: other.siblings.live == {FROZEN, OTHER})
        stand.cluster.faults.delay = 2
        await people.send(spawn(user, generation=10))
        await until(lambda: stand.cluster.reads["get", "persistentvolumeclaims"] == 1)
        # What makes it has it for itself until it is done, and its end is next in line.
        await people.send(delete(user, generation=20), node=NODE)
        await people.reaches(name, Phase.STOPPING)
        await asyncio.sleep(0.5)
        frozen.send_signal(signal.SIGSTOP)
        stand.cluster.faults.delay = 0
        await until(lambda: other.siblings.live == {OTHER}, within=30)
        await people.vanishes(name)
        await people.send(spawn(user, generation=30))
        await people.reaches(name, Phase.READY)
        new = uids(stand)
        assert {kind for kind, _ in new} == set(KINDS)
        stand.cluster.forget_requests()
        frozen.send_signal(signal.SIGCONT)
        await until(lambda: other.siblings.live == {FROZEN, OTHER})
        # It has its part again, and so has caught up with all that came meanwhile.
        await until(lambda: not crew.up[OTHER].drives())
        assert stand.cluster.requests, "it went on where it was"
        assert uids(stand) == new
        assert (await people.reaches(name, Phase.READY)).generation == 30


def uids(stand: Stand) -> set[tuple[str, str]]:
    """Of everything that nobody has deleted, by kind."""
    things = [(kind, one["metadata"]) for kind in KINDS for one in stand.cluster.objects(kind)]
    return {(kind, thing["uid"]) for kind, thing in things if "deletionTimestamp" not in thing}
