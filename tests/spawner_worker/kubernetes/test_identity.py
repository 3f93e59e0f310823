"""Which workers are on one cluster, and which only look as if they were."""

import json
from pathlib import Path

import pytest

from mlhub_spawner_worker.backends.kubernetes.client import KubeClient
from mlhub_spawner_worker.nodes import is_same
from tests.spawner_worker.kubernetes.conftest import Stand
from tests.support.authority import Authority
from tests.support.kube import FakeCluster


@pytest.fixture(scope="module")
def authorities() -> list[str]:
    """Certificates of three."""
    return [Authority().certificate for _ in range(3)]


async def identity(folder: Path, *, trusts: str | None, server: str = "https://10.96.0.1") -> str:
    """Of a worker that reaches a cluster like that."""
    file = folder / "kubeconfig"
    cluster = {"server": server}
    if trusts is not None:
        (folder / "ca.crt").write_text(trusts)
        cluster["certificate-authority"] = str(folder / "ca.crt")
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": cluster}],
        "users": [{"name": "worker", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "it", "user": "worker"}}],
        "current-context": "c",
    }
    file.write_text(json.dumps(config))
    client = KubeClient(kubeconfig=file, namespace=None)
    await client.open()
    await client.aclose()
    return f"hub@default#{','.join(client.marks)}"


async def test_clusters_are_told_apart_by_whom_they_are_trusted_by(tmp_path: Path, authorities: list[str]) -> None:
    one, other, _ = authorities
    first = await identity(tmp_path, trusts=one)
    assert not is_same(first, await identity(tmp_path, trusts=other)), "the addresses are alike in most clusters"
    assert is_same(first, await identity(tmp_path, trusts=f"# ours\n{one}\n", server="https://outside:6443"))
    assert not is_same(first, first.replace("default", "elsewhere"))
    assert is_same(first, "hub@default"), "a worker that does not tell may be of it"


async def test_workers_agree_while_the_cluster_changes_its_authority(tmp_path: Path, authorities: list[str]) -> None:
    old, new, another = authorities
    steps = [await identity(tmp_path, trusts=trusted) for trusted in (old, old + new, new)]
    assert is_same(steps[0], steps[1])
    assert is_same(steps[1], steps[2])
    assert not is_same(steps[1], await identity(tmp_path, trusts=another))


async def test_without_an_authority_it_is_the_address(tmp_path: Path) -> None:
    one = await identity(tmp_path, trusts=None, server="http://one:8080")
    assert is_same(one, await identity(tmp_path, trusts=None, server="http://one:8080/"))
    assert not is_same(one, await identity(tmp_path, trusts=None, server="http://other:8080"))


async def test_equal_namespaces_of_two_clusters_are_not_shared(stand: Stand, tmp_path: Path) -> None:
    async with FakeCluster.open(stand.cluster.namespace, processes=False) as other, stand.backend() as backend:
        elsewhere = Stand(other, tmp_path)
        async with elsewhere.backend() as stranger, stand.backend() as sibling:
            assert backend.cluster is not None
            assert stranger.cluster is not None
            assert sibling.cluster is not None
            assert not is_same(backend.cluster, stranger.cluster)
            assert is_same(backend.cluster, sibling.cluster)
