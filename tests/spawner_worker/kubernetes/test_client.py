"""What the client costs the worker beside the API."""

import asyncio
import threading
from pathlib import Path

from mlhub_spawner_worker.backends.kubernetes.client import PODS, KubeClient
from tests.support.kube import FakeCluster


async def test_calls_need_no_threads(tmp_path: Path) -> None:
    async with FakeCluster.open(processes=False) as cluster:
        client = KubeClient(kubeconfig=cluster.kubeconfig(tmp_path / "config"), namespace=None)
        await client.open()
        before = threading.active_count()
        await asyncio.gather(*(client.version(PODS) for _ in range(20)))
        assert threading.active_count() == before
        await client.aclose()
