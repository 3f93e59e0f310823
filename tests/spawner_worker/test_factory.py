"""What a worker loads."""

import os
import subprocess
import sys

import pytest

_LOADED = """
import sys
import mlhub_spawner_worker.__main__
from mlhub_spawner_worker.factory import make_backend
from mlhub_spawner_worker.settings import SpawnerWorkerSettings
make_backend(SpawnerWorkerSettings())
print(*sorted({"aiodocker", "kubernetes_asyncio"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("backend", "client"), [("process", ""), ("docker", "aiodocker"), ("kubernetes", "kubernetes_asyncio")]
)
def test_a_worker_loads_no_client_but_its_own(backend: str, client: str) -> None:
    """That of Kubernetes takes as much memory as a third of the worker."""
    loaded = subprocess.run(
        [sys.executable, "-c", _LOADED],
        env={"PATH": os.environ["PATH"], "MLHUB_SPAWNER_WORKER_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert loaded.stdout.strip() == client
