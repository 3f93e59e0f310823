"""Where workspaces run: the fake API server, or a real cluster where the environment names one."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.bench.processes import Child, python
from tests.support.ports import free_port

IMAGE = "mlhub-workspace"
START = 0.5
"""Seconds that a pod of the fake cluster needs for itself."""


@dataclass(frozen=True)
class ClusterPlace:
    """How worker and bench reach it."""

    worker: Path
    """Kubeconfig."""
    bench: Path
    control: str | None = None
    """Address that tells of calls. None: nobody counts them."""

    @property
    def is_real(self) -> bool:
        return self.control is None

    async def calls(self) -> Mapping[str, int]:
        """What the worker has asked for since the last time, how often each."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.control}/calls?user=spawner-worker") as said:
            found: dict[str, int] = await said.json()
            return found


@asynccontextmanager
async def cluster_place(folder: Path) -> AsyncIterator[ClusterPlace]:
    """The real one that `KUBECONFIG` names, if `MLHUB_TEST_KUBERNETES` is 1; else the fake one, in its own process."""
    if os.environ.get("MLHUB_TEST_KUBERNETES") == "1" and (config := os.environ.get("KUBECONFIG")):
        yield ClusterPlace(Path(config), Path(config))
        return
    port = free_port()
    command = python("-m", "tests.bench.cluster.server", f"--folder={folder}", f"--control={port}", f"--start={START}")
    async with Child("kubernetes", command, folder) as server:
        url = f"http://127.0.0.1:{port}"
        await server.answers(f"{url}/calls?user=nobody")
        yield ClusterPlace(folder / "spawner-worker.kubeconfig", folder / "bench.kubeconfig", url)
