"""What a workspace comes to on the cluster, from its first write to its last."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from mlhub_shared.contracts.workspace import Phase, Reason
from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends.base import BackendError, Exit
from mlhub_spawner_worker.backends.kubernetes.client import POLICIES, SERVICES, Kind
from mlhub_spawner_worker.factory import make_backend
from mlhub_spawner_worker.settings import SpawnerWorkerSettings
from tests.spawner_worker.kubernetes.conftest import HUB, Stand
from tests.support.kube import FakeCluster, Script
from tests.support.kube_backend import rules
from tests.support.makers import NEWEST
from tests.support.waiting import until

ALICE = "ws-alice-test"
GRACE = timedelta(seconds=1)
MOST_WRITES = 8
A_SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": ALICE}}
A_SERVICE |= {"spec": {"selector": {"app": "another"}, "ports": [{"port": 80}]}}
A_POLICY = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": ALICE}}
A_POLICY |= {"spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}}


async def live(stand: Stand, **spec: Any) -> None:
    """One life, as the driver asks for it."""
    async with stand.backend() as backend:
        job = stand.job(**spec)
        await stand.run(backend, job)
        ready = stand.record(phase=Phase.READY, spec=job.record.spec)
        for _ in range(2):
            await backend.remember(job.record)
            await backend.remember(ready)
        await backend.stop(ALICE, grace=GRACE, up_to=NEWEST)
        await backend.remember(stand.record(phase=Phase.STOPPED, generation=2, spec=job.record.spec))
        await backend.remember(stand.record(phase=Phase.STOPPING, generation=3, spec=job.record.spec))
        await backend.stop(ALICE, grace=GRACE, up_to=NEWEST)
        await backend.erase(ALICE, up_to=NEWEST)


async def test_a_whole_life_takes_few_writes_and_leaves_nothing(stand: Stand) -> None:
    await live(stand)
    assert sum(stand.cluster.writes.values()) <= MOST_WRITES
    await until(lambda: not stand.left())


async def test_a_life_without_a_volume_leaves_nothing_either(stand: Stand) -> None:
    await live(stand, is_mount_volume=False)
    assert sum(stand.cluster.writes.values()) <= MOST_WRITES
    assert stand.cluster.writes["create", "persistentvolumeclaims"] == 0
    await until(lambda: not stand.left())


async def test_nothing_is_listed_while_nothing_goes_wrong(stand: Stand) -> None:
    async with stand.backend() as backend:
        stand.cluster.forget_requests()
        await stand.run(backend, stand.job())
        await backend.stop(ALICE, grace=GRACE, up_to=NEWEST)
        # Longer than a watch lasts.
        await asyncio.sleep(6)
        assert stand.cluster.reads["watch", "pods"] >= 1
        assert not [call for call in stand.cluster.requests if call.verb == "list"]


async def test_a_stop_keeps_the_volume_and_the_isolation(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job())
        assert set(stand.left()) == {"pods", "services", "persistentvolumeclaims", "networkpolicies"}
        await backend.stop(ALICE, grace=GRACE, up_to=NEWEST)
        await until(lambda: set(stand.left()) == {"persistentvolumeclaims", "networkpolicies"})


async def test_a_resolver_that_the_settings_name_may_be_asked(stand: Stand) -> None:
    kubeconfig = stand.cluster.kubeconfig(stand.folder / "kubeconfig", stand.cluster.token(rules()))
    settings = SpawnerWorkerSettings(backend="kubernetes", hub_name=HUB, kubeconfig=kubeconfig, dns="169.254.169.254")
    backend = make_backend(settings)
    await backend.open()
    try:
        await backend.prepare(stand.job(), stand.report)
    finally:
        await backend.aclose()
    [policy] = stand.cluster.objects("networkpolicies")
    allowed = [rule for rule in policy["spec"]["egress"] if "169.254.169.254/32" in str(rule["to"])]
    assert [[port["port"] for port in rule["ports"]] for rule in allowed] == [[53, 53]]


async def test_a_new_start_has_a_service_of_its_own(stand: Stand) -> None:
    stand.cluster.collector.is_on = False
    async with stand.backend() as backend:
        await stand.run(backend, stand.job())
        await backend.stop(ALICE, grace=GRACE, up_to=NEWEST)
        await stand.run(backend, stand.job(generation=2))
        pod, service = stand.cluster.get("pods", ALICE), stand.cluster.get("services", ALICE)
        assert pod is not None
        assert service is not None
        assert [owner["uid"] for owner in service["metadata"]["ownerReferences"]] == [pod["metadata"]["uid"]]


async def test_no_secret_is_written_but_to_the_pod_itself(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job())
        pod = stand.cluster.get("pods", ALICE)
        assert pod is not None
        assert "canary" in json.dumps(pod["spec"]["containers"])
        assert "canary" not in json.dumps(pod["metadata"])
        for kind in ("services", "persistentvolumeclaims", "networkpolicies"):
            assert "canary" not in json.dumps(stand.cluster.objects(kind))


async def test_somebody_elses_things_are_left_alone(stand: Stand) -> None:
    foreign = {"metadata": {"name": ALICE}, "spec": {"containers": [{"name": "main", "image": "theirs"}]}}
    stand.cluster.create("pods", foreign)
    async with stand.backend() as backend:
        with pytest.raises(BackendError, match="this hub has not made"):
            await stand.run(backend, stand.job())
        await backend.stop(ALICE, grace=GRACE, up_to=NEWEST)
        assert stand.cluster.get("pods", ALICE) is not None


@pytest.mark.parametrize(("kind", "body"), [(SERVICES, A_SERVICE), (POLICIES, A_POLICY)], ids=["service", "policy"])
async def test_a_name_that_somebody_else_has_taken_is_not_taken_from_them(
    stand: Stand, kind: Kind, body: dict[str, Any]
) -> None:
    await stand.changed_by_others(kind, body)
    theirs = stand.cluster.get(kind.resource, ALICE)
    async with stand.backend() as backend:
        with pytest.raises(BackendError, match="this hub has not made"):
            await stand.run(backend, stand.job(is_mount_volume=False))
        await backend.stop(ALICE, grace=GRACE, up_to=NEWEST)
        await backend.erase(ALICE, up_to=NEWEST)
    assert stand.cluster.get(kind.resource, ALICE) == theirs


async def test_an_isolation_that_somebody_has_changed_is_set_right(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job())
        [right] = stand.cluster.objects("networkpolicies")
        await stand.changed_by_others(POLICIES, A_POLICY)
        await stand.run(backend, stand.job(generation=2))
        [policy] = stand.cluster.objects("networkpolicies")
        assert policy["spec"] == right["spec"]


async def test_an_end_that_the_cluster_refused_to_a_worker_is_not_its_own(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job())
        waiting = asyncio.ensure_future(backend.wait(ALICE))
        stand.cluster.faults.revoke("delete", "pods")
        with pytest.raises(Temporary, match="may not delete pods"):
            await backend.stop(ALICE, grace=GRACE, up_to=NEWEST)
        stand.cluster.delete("pods", ALICE)
        assert "deleted by somebody else" in (await asyncio.wait_for(waiting, 20)).message


async def test_what_memory_has_ended_is_told(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job(mem_limit=2**27))
        waiting = asyncio.ensure_future(backend.wait(ALICE))
        stand.cluster.kubelet.kill(ALICE, oom=True)
        end = await asyncio.wait_for(waiting, 20)
        assert (end.code, end.reason) == (-9, Reason.OUT_OF_MEMORY)


async def test_an_eviction_is_told_with_the_nodes_own_words(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job())
        waiting = asyncio.ensure_future(backend.wait(ALICE))
        stand.cluster.kubelet.evict(ALICE, "The node was low on resource: memory.")
        end = await asyncio.wait_for(waiting, 20)
        assert end.reason is Reason.EVICTED
        assert "low on resource: memory" in end.message


async def test_a_pod_that_somebody_deletes_is_told_of(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job())
        waiting = asyncio.ensure_future(backend.wait(ALICE))
        stand.cluster.delete("pods", ALICE)
        end = await asyncio.wait_for(waiting, 20)
        assert end.reason is Reason.EVICTED
        assert "deleted by somebody else" in end.message


async def test_another_worker_adopts_what_runs(stand: Stand) -> None:
    async with stand.backend() as backend:
        started = await stand.run(backend, stand.job())
        ready = stand.record(phase=Phase.READY)
        await backend.remember(ready)
    async with stand.backend() as other:
        [found] = await other.inventory()
        assert (found.record, found.running) == (ready, started)
        stand.cluster.forget_requests()
        assert await other.start(stand.job()) == started
        await other.remember(ready)
        assert not [call for call in stand.cluster.requests if call.verb in {"create", "delete"}]
        waiting = asyncio.ensure_future(other.wait(ALICE))
        stand.cluster.kubelet.kill(ALICE, 3)
        assert (await asyncio.wait_for(waiting, 20)).code == 3


async def test_a_record_is_rebuilt_from_the_pod_where_none_was_kept(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job("Ålice B", "my gpu", generation=5, mem_limit=2**27))
        [found] = await backend.inventory()
        assert (found.record.workspace.user, found.record.workspace.server) == ("Ålice B", "my gpu")
        assert (found.record.generation, found.record.spec.mem_limit) == (5, 2**27)


async def test_a_death_while_the_api_is_away_is_told_when_it_is_back(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job())
        waiting = asyncio.ensure_future(backend.wait(ALICE))
        await stand.cluster.faults.leave()
        await asyncio.sleep(1)
        assert not waiting.done()
        stand.cluster.delete("pods", ALICE)
        stand.cluster.faults.compact()
        await asyncio.sleep(1)
        assert not waiting.done()
        await stand.cluster.faults.come_back(forbidden=2)
        end = await asyncio.wait_for(waiting, 20)
        assert end.reason is Reason.EVICTED


async def test_a_workspace_outlives_outages_of_the_api(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job())
        waiting = asyncio.ensure_future(backend.wait(ALICE))
        for fault in (stand.cluster.faults.cut_watches, stand.cluster.faults.expire_watches):
            fault()
            await asyncio.sleep(0.5)
        await stand.cluster.faults.away(1, forbidden=2)
        stand.cluster.faults.middle_box(times=5)
        await asyncio.sleep(2)
        assert not waiting.done()
        stand.cluster.kubelet.kill(ALICE, 7)
        assert (await asyncio.wait_for(waiting, 20)).code == 7


async def test_a_lost_node_is_trouble_and_no_death(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job())
        waiting = asyncio.ensure_future(backend.wait(ALICE))
        assert not await asyncio.wait_for(backend.trouble(ALICE, "something else"), 20)
        stand.cluster.kubelet.lose_node()
        trouble = await asyncio.wait_for(backend.trouble(ALICE, ""), 20)
        assert "does not answer" in trouble
        assert not waiting.done()
        stand.cluster.kubelet.bring_back_node()
        assert await asyncio.wait_for(backend.trouble(ALICE, trouble), 20) == ""
        assert not waiting.done()
        waiting.cancel()


def restart(cluster: FakeCluster) -> None:
    cluster.kubelet.restart_node()


def shut_down(cluster: FakeCluster) -> None:
    why = "Pod was terminated in response to imminent node shutdown."
    cluster.kubelet.evict(ALICE, why, reason="Terminated")


@pytest.mark.parametrize(("ends", "words"), [(restart, "was started anew"), (shut_down, "was shut down")])
async def test_what_died_with_its_node_is_told_apart_and_can_be_started_again(
    stand: Stand, ends: Callable[[FakeCluster], None], words: str
) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job())
        waiting = asyncio.ensure_future(backend.wait(ALICE))
        ends(stand.cluster)
        end = await asyncio.wait_for(waiting, 20)
        assert (end.with_host, end.reason) == (True, Reason.EVICTED)
        assert words in end.message
        [dead] = stand.cluster.objects("pods")
        # The same start once more, though nobody has cleared away what is left of the first.
        await stand.run(backend, stand.job())
        [pod] = stand.cluster.objects("pods")
        assert pod["metadata"]["uid"] != dead["metadata"]["uid"]
        assert (await backend.describe(ALICE)).running


async def test_a_node_that_ends_in_mid_start_is_no_reason_to_give_up(stand: Stand) -> None:
    why = "Pod was rejected as the node is shutting down."
    stand.cluster.kubelet.script(ALICE, Script(pull=30))
    async with stand.backend() as backend:
        starting = asyncio.ensure_future(stand.run(backend, stand.job()))
        await until(lambda: stand.told("fetches"))
        stand.cluster.kubelet.script(ALICE, Script())
        stand.cluster.kubelet.evict(ALICE, why, reason="NodeShutdown")
        with pytest.raises(Temporary, match=why):
            await asyncio.wait_for(starting, 20)
        await stand.run(backend, stand.job())


async def test_a_pod_that_somebody_deletes_from_a_node_that_went_down_has_ended(stand: Stand) -> None:
    stand.cluster.kubelet.script(ALICE, Script(stop_takes=30))
    async with stand.backend(stop_grace=timedelta(seconds=30)) as backend:
        await stand.run(backend, stand.job())
        waiting = asyncio.ensure_future(backend.wait(ALICE))
        stand.cluster.delete("pods", ALICE)
        stand.cluster.kubelet.restart_node()
        assert not (await asyncio.wait_for(waiting, 20)).with_host


async def test_a_node_that_stays_lost_is_given_up_by_the_cluster(stand: Stand) -> None:
    async with stand.backend(unreachable=timedelta(seconds=1)) as backend:
        await stand.run(backend, stand.job())
        waiting = asyncio.ensure_future(backend.wait(ALICE))
        stand.cluster.kubelet.lose_node()
        await until(lambda: "deletionTimestamp" in (stand.cluster.get("pods", ALICE) or {})["metadata"])
        assert not waiting.done()
        stand.cluster.kubelet.bring_back_node()
        end: Exit = await asyncio.wait_for(waiting, 20)
        assert end.reason is Reason.EVICTED
        assert "gave it up" in end.message
