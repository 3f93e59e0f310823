"""A cluster for each test, and clients of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kube.clients import Clients, clients_of
from tests.support.kube import FakeCluster


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    """One whose containers are real processes."""
    async with FakeCluster.open() as cluster:
        yield cluster


@pytest.fixture
async def k8s(cluster: FakeCluster, tmp_path: Path) -> AsyncIterator[Clients]:
    """Clients that may do everything."""
    async with clients_of(cluster, tmp_path) as clients:
        yield clients
