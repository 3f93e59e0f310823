"""Pods of any size on the one watch that all workspaces share."""

from typing import Any

import structlog

from tests.spawner_worker.kubernetes.conftest import Stand
from tests.support.kube import FakeCluster
from tests.support.waiting import until


def padded(pod: dict[str, Any], size: int) -> dict[str, Any]:
    """The same pod with a variable of so many bytes."""
    [container] = pod["spec"]["containers"]
    env = [*container.get("env", []), {"name": "LARGE", "value": "x" * size}]
    return {**pod, "spec": {**pod["spec"], "containers": [{**container, "env": env}]}}


def grow(cluster: FakeCluster, size: int) -> None:
    """Tell the watches of a pod that has become that large."""
    [stored] = cluster.store.all("pods", cluster.namespace)
    cluster.store.replace(stored, padded(stored.obj, size))


async def test_a_large_pod_is_told_like_any_other(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job())
        stand.cluster.forget_requests()
        grow(stand.cluster, 1_500_000)
        await stand.run(backend, stand.job("bob"))
        assert not stand.cluster.reads["list", "pods"], "the watch goes on"


async def test_what_no_watch_could_tell_costs_a_list_and_blocks_nobody(stand: Stand) -> None:
    with structlog.testing.capture_logs() as logs:
        await told_too_much(stand)
    why = [line["why"] for line in logs if line["event"] == "kubernetes.not_watching"]
    assert why == ["The Kubernetes API tells more than 4 MiB of a single thing"]


async def told_too_much(stand: Stand) -> None:
    """A watch meets a thing that is larger than any, and goes on."""
    async with stand.backend() as backend:
        await stand.run(backend, stand.job())
        stand.cluster.forget_requests()
        grow(stand.cluster, 5_000_000)
        await until(lambda: stand.cluster.reads["list", "pods"] == 1)
        await stand.run(backend, stand.job("bob"))
        assert stand.cluster.reads["list", "pods"] == 1, "it is not listed again and again"
