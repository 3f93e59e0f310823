"""Whether the tests clean up after themselves where the cluster is not theirs."""

from pathlib import Path
from typing import Any

import pytest

from tests.spawner_worker.kubernetes.conftest import HUB, Stand
from tests.support.kube_backend import left_clean, rules
from tests.support.waiting import until

ALICE = "ws-alice-test"
WITHIN = 20.0


def kubeconfig(stand: Stand) -> Path:
    """As whoever runs the tests has it: with the worker's own rights."""
    return stand.cluster.kubeconfig(stand.folder / "own", stand.cluster.token(rules()))


async def abandon(stand: Stand, **spec: Any) -> None:
    """A test that ends in the midst of a workspace's life."""
    async with stand.backend() as backend:
        await stand.run(backend, stand.job(**spec))


@pytest.mark.parametrize("has_volume", [True, False])
async def test_what_a_test_has_left_is_gone_afterwards(stand: Stand, has_volume: bool) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1G"}}}
    stand.cluster.create("persistentvolumeclaims", {"metadata": {"name": "others"}, "spec": spec})
    async with left_clean(kubeconfig(stand), HUB, within=WITHIN):
        await abandon(stand, is_mount_volume=has_volume)
    assert not stand.cluster.objects("pods")
    assert [claim["metadata"]["name"] for claim in stand.cluster.objects("persistentvolumeclaims")] == ["others"]
    await until(lambda: set(stand.left()) == {"persistentvolumeclaims"})


async def lose(stand: Stand) -> None:
    """A test after which nothing can be removed."""
    async with left_clean(kubeconfig(stand), HUB, within=2):
        await abandon(stand)
        stand.cluster.kubelet.lose_node()


async def test_what_stays_is_named(stand: Stand) -> None:
    with pytest.raises(AssertionError, match=f"left in the namespace .*: pods/{ALICE}, persistentvolumeclaims/{ALICE}"):
        await lose(stand)
