"""A worker that comes late: another one has finished what it was at, and the workspace has begun a new life."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mlhub_shared.contracts.workspace import Phase
from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends.kubernetes import KubernetesBackend
from mlhub_spawner_worker.backends.kubernetes.client import POLICIES, Json, Kind
from tests.spawner_worker.kubernetes.conftest import Stand
from tests.support.makers import delete, spawn, stop
from tests.support.nats_server import NatsServer
from tests.support.waiting import until
from tests.support.workers import People, working

ALICE = "ws-alice-test"
NOW = timedelta(0)


@asynccontextmanager
async def two(stand: Stand) -> AsyncIterator[tuple[KubernetesBackend, KubernetesBackend]]:
    """Backends of two workers, each with its own view of the cluster."""
    async with stand.backend() as late, stand.backend() as other:
        yield late, other


def uids(stand: Stand) -> dict[str, str]:
    """Of all that there is of Alice's workspace."""
    return {kind: str(thing["metadata"]["uid"]) for kind in stand.left() if (thing := stand.cluster.get(kind, ALICE))}


@pytest.mark.parametrize("is_mount_volume", [True, False], ids=["volume", "no-volume"])
async def test_a_late_stop_or_deletion_leaves_the_next_life_alone(stand: Stand, is_mount_volume: bool) -> None:
    async with two(stand) as (late, other):
        await stand.run(late, stand.job(generation=5, is_mount_volume=is_mount_volume))
        await other.stop(ALICE, grace=NOW, up_to=6)
        await other.erase(ALICE, up_to=6)
        await until(lambda: not stand.left())
        await stand.run(other, stand.job(generation=7, is_mount_volume=is_mount_volume))
        new = uids(stand)
        await late.stop(ALICE, grace=NOW, up_to=6)
        await late.erase(ALICE, up_to=6)
        await asyncio.sleep(0.5)  # For the cluster's collector.
        assert uids(stand) == new
        assert len(new) == 3 + is_mount_volume
        await other.stop(ALICE, grace=NOW, up_to=8)
        await other.erase(ALICE, up_to=8)
        await until(lambda: not stand.left())


async def test_a_volume_of_before_goes_with_a_later_deletion(stand: Stand) -> None:
    async with two(stand) as (late, other):
        await stand.run(late, stand.job(generation=5))
        await late.stop(ALICE, grace=NOW, up_to=6)
        volume = uids(stand)["persistentvolumeclaims"]
        await stand.run(other, stand.job(generation=7))
        assert uids(stand)["persistentvolumeclaims"] == volume
        await other.erase(ALICE, up_to=8)
        await until(lambda: not stand.left())


async def test_a_volume_that_does_not_say_what_it_was_made_for_goes_with_any_deletion(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job(generation=5))
        await backend.stop(ALICE, grace=NOW, up_to=6)
        stored = stand.cluster.get("persistentvolumeclaims", ALICE)
        assert stored is not None
        del stored["metadata"]["annotations"]["mlhub.generation"]  # As a backup may bring it back.
        await backend.erase(ALICE, up_to=1)
        await until(lambda: not stand.left())


async def test_a_stop_that_waits_takes_no_isolation_from_the_start_that_has_overtaken_it(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job(generation=5, is_mount_volume=False))
        stopping = asyncio.ensure_future(backend.stop(ALICE, grace=timedelta(seconds=1), up_to=6))
        await until(lambda: stand.cluster.writes["delete", "pods"] == 1)
        await stand.run(backend, stand.job(generation=7, is_mount_volume=False))
        await stopping
        await asyncio.sleep(0.5)  # For the cluster's collector.
        assert set(stand.left()) == {"pods", "services", "networkpolicies"}


async def test_a_late_start_ties_no_isolation_of_a_newer_pod_to_its_own(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two(stand) as (late, other):
        made, goes_on = asyncio.Event(), asyncio.Event()
        change = late.client.change

        async def slow(kind: Kind, body: Json, *, version: str) -> Json:
            if kind == POLICIES:
                made.set()
                await goes_on.wait()
            return await change(kind, body, version=version)

        monkeypatch.setattr(late.client, "change", slow)
        starting = asyncio.ensure_future(stand.run(late, stand.job(generation=5, is_mount_volume=False)))
        await asyncio.wait_for(made.wait(), 20)
        await other.stop(ALICE, grace=NOW, up_to=6)
        await stand.run(other, stand.job(generation=7, is_mount_volume=False))
        goes_on.set()
        with pytest.raises(Temporary):
            await asyncio.wait_for(starting, 20)
        [policy] = stand.cluster.objects("networkpolicies")
        assert [owner["uid"] for owner in policy["metadata"]["ownerReferences"]] == [uids(stand)["pods"]]


async def test_a_late_start_ties_no_isolation_of_a_newer_life_to_a_volume_that_is_gone(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two(stand) as (late, other):
        made, goes_on = asyncio.Event(), asyncio.Event()
        create = late.client.create

        async def slow(kind: Kind, body: Json) -> Json:
            if kind == POLICIES:
                made.set()
                await goes_on.wait()
            return await create(kind, body)

        monkeypatch.setattr(late.client, "create", slow)
        starting = asyncio.ensure_future(stand.run(late, stand.job(generation=5)))
        await asyncio.wait_for(made.wait(), 20)
        await other.erase(ALICE, up_to=6)
        await stand.run(other, stand.job(generation=7))
        goes_on.set()
        with pytest.raises(Temporary):
            await asyncio.wait_for(starting, 20)
        [policy] = stand.cluster.objects("networkpolicies")
        assert [owner["uid"] for owner in policy["metadata"]["ownerReferences"]] == [
            uids(stand)["persistentvolumeclaims"]
        ]


async def test_a_deletion_that_the_cluster_does_not_take_says_so_and_is_tried_again(
    stand: Stand, nats_server: NatsServer, tmp_path: Path, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", stand.made(), node="kubernetes"):
        await people.send(spawn(generation=10))
        await people.reaches(ALICE, Phase.READY)
        [stored] = stand.cluster.objects("persistentvolumeclaims")
        labels = stored["metadata"].pop("labels")
        with capture_logs() as logs:
            await people.send(delete(generation=20), node="kubernetes")
            record = await people.reaches(ALICE, lambda r: r is not None and "has not made" in r.message)
        assert record.phase is Phase.STOPPING
        assert not [entry for entry in logs if entry["event"] == "workspace.step_failed"]
        [stored] = stand.cluster.objects("persistentvolumeclaims")
        stored["metadata"]["labels"] = labels
        await people.vanishes(ALICE)
        await until(lambda: not stand.left())


async def test_a_stop_that_a_lost_node_holds_up_says_so(
    stand: Stand, nats_server: NatsServer, tmp_path: Path, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", stand.made(), node="kubernetes"):
        await people.send(spawn(generation=10))
        await people.reaches(ALICE, Phase.READY)
        stand.cluster.kubelet.lose_node()
        await people.reaches(ALICE, lambda r: r is not None and "does not answer" in r.message)
        await people.send(stop(generation=20), node="kubernetes")
        record = await people.reaches(ALICE, lambda r: r is not None and "nobody knows whether" in r.message)
        assert record.phase is Phase.STOPPING
        stand.cluster.kubelet.bring_back_node()
        assert (await people.reaches(ALICE, Phase.STOPPED)).message == ""
