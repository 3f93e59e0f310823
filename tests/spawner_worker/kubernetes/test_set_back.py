"""A cluster whose store has been restored from a backup: versions are lower than those that were told before."""

import asyncio
from datetime import timedelta

from mlhub_shared.contracts.workspace import Phase, Reason
from mlhub_spawner_worker.backends.kubernetes.watching import Pace
from tests.spawner_worker.kubernetes.conftest import Stand

QUICK = Pace(lasting=timedelta(seconds=2), silence=timedelta(seconds=4), most=timedelta(seconds=0.5))
CHANGES = 20


async def test_a_worker_hears_of_what_happens_afterwards(stand: Stand) -> None:
    async with stand.backend(pace=QUICK) as backend:
        alice, bob = stand.job("alice", is_mount_volume=False), stand.job("bob")
        await stand.run(backend, alice)
        backup = stand.cluster.store.backup()
        for number in range(CHANGES):
            record = alice.record.model_copy(update={"phase": Phase.READY, "message": f"{number}"})
            await backend.remember(record)
        await stand.run(backend, bob)
        told = stand.cluster.store.revision
        stand.cluster.store.restore(backup)
        stand.cluster.faults.cut_watches()

        exited = await asyncio.wait_for(backend.wait(bob.name), 20)
        assert (exited.code, exited.reason) == (None, Reason.EVICTED), "it was made after the backup"
        stand.cluster.kubelet.kill(alice.name, 3)
        assert (await asyncio.wait_for(backend.wait(alice.name), 20)).code == 3
        assert stand.cluster.store.revision < told, "what it tells is still older than what it told"
