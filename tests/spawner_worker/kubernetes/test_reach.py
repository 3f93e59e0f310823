"""The API out of reach for one worker of two, and for both of them in the middle of starts."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.workspace import Phase
from mlhub_spawner_worker import siblings
from tests.spawner_worker.kubernetes.conftest import Stand
from tests.spawner_worker.test_siblings import name, owned_by
from tests.support.kube import Script
from tests.support.kube_backend import IMAGE, PACE, kubernetes_backend, rules
from tests.support.makers import delete, spawn
from tests.support.nats_server import NatsServer
from tests.support.replicas import replicas
from tests.support.waiting import until, until_async
from tests.support.workers import People

OUTAGE = 30.0
"""Seconds: what a control plane takes that is restarted, or upgraded."""


async def test_a_worker_that_does_not_get_through_to_the_api_is_relieved(
    stand: Stand, nats_server: NatsServer, tmp_path: Path, bus: Bus, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(siblings, "HOLD", 1.0)
    pace = replace(PACE, patience=timedelta(seconds=1))
    tokens = [stand.cluster.token(rules()) for _ in range(2)]
    ways = [stand.cluster.kubeconfig(tmp_path / f"config-{token}", token) for token in tokens]
    made = iter([kubernetes_backend(way, "test", pace=pace) for way in ways])
    async with replicas(nats_server, tmp_path, lambda: next(made), bus) as crew:
        for replica in ("r1", "r2"):
            await crew.start_one(replica)
        await crew.count("r1", "r2")
        del stand.cluster.access.users[tokens[0]]
        stand.cluster.faults.cut_watches()
        user = owned_by("r1", "r2")
        await people.send(spawn(user, generation=10))
        ready = await people.reaches(name(user), Phase.READY, within=30)
        assert ready.generation == 10
        assert len(stand.cluster.objects("pods")) == 1
        assert "token is not accepted" in crew.up["r1"].health.problems()["backend"]
        assert "backend" not in crew.up["r2"].health.problems()
        stand.cluster.give(tokens[0], rules())
        await until(lambda: not crew.up["r1"].health.problems())
        await until(lambda: name(user) in crew.up["r1"].drives())
        assert await people.record(name(user)) == ready


async def test_workers_get_over_half_a_minute_without_the_api_in_the_middle_of_starts(
    stand: Stand, nats_server: NatsServer, tmp_path: Path, bus: Bus, people: People
) -> None:
    """It takes as long as it says: nothing of what is waited for here is made shorter."""
    users = [owned_by("r1", "r2"), owned_by("r2", "r1")]
    async with replicas(nats_server, tmp_path, stand.made, bus) as crew:
        await crew.start("r1", "r2")
        await people.send(spawn("ann", generation=10))
        before = await people.reaches(name("ann"), Phase.READY)
        for user in users:
            stand.cluster.kubelet.script(f"ws-{user}-test", Script(pull=2.0))
            await people.send(spawn(user, generation=10))

        async def all_fetch() -> bool:
            told = [await people.history(name(user)) for user in users]
            return all(any(f"fetches {IMAGE}" in event.message for event in events) for events in told)

        await until_async(all_fetch)
        await stand.cluster.faults.leave()
        await asyncio.sleep(OUTAGE / 2)
        for user in users:
            said = [event.message for event in await people.history(name(user))]
            assert said[-1].startswith("The Kubernetes API does not answer"), said
            await people.reaches(name(user), Phase.PREPARING, within=1)
        await asyncio.sleep(OUTAGE / 2)
        await stand.cluster.faults.come_back(forbidden=2)
        for user in users:
            assert (await people.reaches(name(user), Phase.READY)).generation == 10
        assert await people.record(name("ann")) == before, "what runs, runs on"
        assert stand.cluster.writes["create", "pods"] == len(stand.cluster.objects("pods")) == 3
        assert not stand.cluster.writes["delete", "pods"]
        for user in ("ann", *users):
            await people.send(delete(user, generation=20))
        for user in ("ann", *users):
            await people.vanishes(name(user))
    await until(lambda: not stand.left())
