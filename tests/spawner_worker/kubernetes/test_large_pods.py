"""Pods of any size on the one watch that all workspaces share."""

from datetime import timedelta
from typing import Any

import pytest

from tests.spawner_worker.kubernetes.conftest import Stand
from tests.support.kube import FakeCluster
from tests.support.waiting import until

ALICE = "ws-alice-test"


def padded(pod: dict[str, Any], size: int) -> dict[str, Any]:
    """The same pod with a variable of so many bytes."""
    [container] = pod["spec"]["containers"]
    env = [*container.get("env", []), {"name": "LARGE", "value": "x" * size}]
    return {**pod, "spec": {**pod["spec"], "containers": [{**container, "env": env}]}}


def grow(cluster: FakeCluster, size: int) -> None:
    """Tell the watches of a pod that has become that large."""
    [stored] = cluster.store.all("pods", cluster.namespace)
    cluster.store.replace(stored, padded(stored.obj, size))


@pytest.mark.parametrize("variable", ["MLHUB_NOTHING", "HTTPS_PROXY"], ids=["plain", "with-a-proxy"])
async def test_a_large_pod_is_told_like_any_other(stand: Stand, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    async with stand.backend() as backend:
        await stand.run(backend, stand.job())
        stand.cluster.forget_requests()
        grow(stand.cluster, 900_000)
        await stand.run(backend, stand.job("bob"))
        assert not stand.cluster.reads["list", "pods"], "the watch goes on"
        await backend.stop(ALICE, grace=timedelta(0))


async def test_what_no_watch_could_tell_costs_a_list_and_blocks_nobody(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job())
        stand.cluster.forget_requests()
        grow(stand.cluster, 5_000_000)
        await until(lambda: stand.cluster.reads["list", "pods"] == 1)
        await stand.run(backend, stand.job("bob"))
        assert stand.cluster.reads["list", "pods"] == 1, "it is not listed again and again"
