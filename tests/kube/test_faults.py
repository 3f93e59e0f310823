"""What goes wrong with the server, and that it carries a crowd."""

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest
from kubernetes_asyncio.client import ApiException

from tests.kube.clients import Clients, clients_of, phase, pod, refused, state
from tests.support.kube import FakeCluster, Timing
from tests.support.kube.faults import of
from tests.support.waiting import until


async def test_too_many_requests(k8s: Clients) -> None:
    k8s.cluster.faults.busy(7, times=2)
    for _ in range(2):
        with pytest.raises(ApiException) as caught:
            await k8s.core.list_namespaced_pod(k8s.namespace)
        assert (caught.value.status, dict(caught.value.headers or ()).get("Retry-After")) == (429, "7")
    await k8s.core.list_namespaced_pod(k8s.namespace)


async def test_a_middle_box_and_a_broken_server(k8s: Clients) -> None:
    k8s.cluster.faults.middle_box(503)
    with pytest.raises(ApiException) as caught:
        await k8s.core.list_namespaced_pod(k8s.namespace)
    assert (caught.value.status, str(caught.value.body)[:22]) == (503, "upstream connect error")

    k8s.cluster.faults.broken(matches=of("create", "pods"))
    await k8s.core.list_namespaced_pod(k8s.namespace)
    await refused(k8s.core.create_namespaced_pod(k8s.namespace, pod()), 500, "InternalError")


async def test_a_slow_server(k8s: Clients) -> None:
    k8s.cluster.faults.delay = 5.0
    with pytest.raises(asyncio.TimeoutError):
        await k8s.core.list_namespaced_pod(k8s.namespace, _request_timeout=0.5)
    k8s.cluster.faults.clear()
    await k8s.core.list_namespaced_pod(k8s.namespace)


async def test_a_server_that_is_away_keeps_its_objects_and_breaks_its_watches(k8s: Clients) -> None:
    await k8s.core.create_namespaced_pod(k8s.namespace, pod())
    await until(lambda: phase(k8s.cluster) == "Running")
    watching = asyncio.create_task(_drain(k8s))
    await until(lambda: k8s.cluster.reads["watch", "pods"] == 1)
    await k8s.cluster.faults.leave()
    with pytest.raises(aiohttp.ClientConnectionError):
        await k8s.core.list_namespaced_pod(k8s.namespace)
    with pytest.raises(aiohttp.ClientPayloadError):
        await asyncio.wait_for(watching, 20)

    k8s.cluster.kubelet.kill("w", 3)
    await until(lambda: "terminated" in state(k8s.cluster))
    await k8s.cluster.faults.come_back(forbidden=1)
    await refused(k8s.core.list_namespaced_pod(k8s.namespace), 403, "Forbidden")
    (found,) = (await k8s.core.list_namespaced_pod(k8s.namespace)).items
    assert found.status.container_statuses[0].state.terminated.exit_code == 3


async def _drain(k8s: Clients) -> None:
    async with k8s.http.get(k8s.url("pods"), params={"watch": "true"}) as answer:
        async for _ in answer.content:
            pass


async def test_requests_are_counted_refused_ones_too(k8s: Clients) -> None:
    k8s.cluster.forget_requests()
    await k8s.core.create_namespaced_pod(k8s.namespace, pod())
    await refused(k8s.core.create_namespaced_pod(k8s.namespace, pod()), 409)
    await k8s.core.list_namespaced_pod(k8s.namespace)

    assert k8s.cluster.writes == {("create", "pods"): 2}
    assert k8s.cluster.reads == {("list", "pods"): 1}
    assert [call.status for call in k8s.cluster.requests] == [201, 409, 200]


async def test_a_crowd_of_pretended_pods(tmp_path: Path) -> None:
    """Nothing costs more because there are many: the last of 1,000 is as fast as the first."""
    crowd, timing = 1_000, Timing(schedule=0, create=0, start=0, pull=0)
    async with (
        FakeCluster.open(processes=False, timing=timing) as cluster,
        clients_of(cluster, tmp_path) as k8s,
    ):
        seconds = []
        for number in range(crowd):
            began = time.perf_counter()
            async with k8s.http.post(k8s.url("pods"), json=pod(f"p{number}")) as answer:
                assert answer.status == 201
            seconds.append(time.perf_counter() - began)
        await until(lambda: all(one["status"]["phase"] == "Running" for one in cluster.objects("pods")))

        cluster.kubelet.kill("p7", oom=True)
        await until(lambda: phase(cluster, "p7") == "Failed")
        first, last = sorted(seconds[:200])[100], sorted(seconds[-200:])[100]
        assert last < 5 * first + 0.005
