"""Fixtures of the docker backend's tests: an engine, a hub of the test's own, and a backend for it."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiodocker
import pytest

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord, WorkspaceSecrets, WorkspaceSpec
from mlhub_spawner_worker.backends.base import Exit, Job, Running
from mlhub_spawner_worker.backends.docker import DockerBackend
from tests.support.docker_engine import deployment, docker_backend
from tests.support.makers import base_url
from tests.support.makers import record as make_record
from tests.support.registry import Registry, registry


class Stand:
    """A hub on the engine, whose backends come and go."""

    def __init__(self, docker: aiodocker.Docker, hub: str, folder: Path) -> None:
        self.docker, self.hub, self.folder = docker, hub, folder
        self.said: list[tuple[int, str]] = []
        """What was reported while preparing."""

    @contextlib.asynccontextmanager
    async def backend(self, **changes: Any) -> AsyncIterator[DockerBackend]:
        """A worker's backend; leaving it is the end of the worker."""
        backend = docker_backend(self.folder, self.hub, **changes)
        await backend.open()
        try:
            yield backend
        finally:
            await backend.aclose()

    def record(self, user: str = "alice", server: str = "", **fields: Any) -> WorkspaceRecord:
        """A record of this hub, about to be prepared."""
        target = WorkspaceId(hub=self.hub, user=user, server=server)
        changes = {"workspace": target, "base_url": base_url(target), "node": "n1"}
        return make_record(user, server, phase=Phase.PREPARING, **fields).model_copy(update=changes)

    def job(self, user: str = "alice", server: str = "", *, generation: int = 1, **spec: Any) -> Job:
        """A start; `spec` is what was asked for."""
        secrets = WorkspaceSecrets(
            generation=generation, env={"JUPYTERHUB_API_TOKEN": "canary-token"}, secret_env={"MINE": "canary-mine"}
        )
        return Job(self.record(user, server, generation=generation, spec=WorkspaceSpec(**spec)), secrets)

    async def report(self, percent: int, message: str) -> None:
        """Takes reports."""
        assert 0 <= percent <= 100
        self.said.append((percent, message))

    async def run(self, backend: DockerBackend, job: Job) -> Running:
        """Prepare and start."""
        await backend.prepare(job, self.report)
        return await backend.start(job)

    async def ends(self, backend: DockerBackend, job: Job) -> Exit:
        """Run it to its end."""
        await self.run(backend, job)
        return await backend.wait(job.name)

    async def inspect(self, name: str) -> dict[str, Any]:
        """The container as the engine has it."""
        return await self.docker.containers.container(name).show()

    async def names(self, kind: str) -> set[str]:
        """Everything of a kind that carries this hub's name: containers, volumes, networks."""
        label = f"mlhub.origin={self.hub}"
        match kind:
            case "containers":
                found = await self.docker.containers.list(all=True, filters=f'{{"label": ["{label}"]}}')
                return {one["Names"][0][1:] for one in found}
            case "volumes":
                return {one["Name"] for one in (await self.docker.volumes.list(filters={"label": [label]}))["Volumes"]}
            case _:
                return {one["Name"] for one in await self.docker.networks.list(filters={"label": label})}


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    """A hub of the test's own; nothing is left of it."""
    async with deployment() as (docker, hub):
        yield Stand(docker, hub, tmp_path / "data")


@pytest.fixture
async def images() -> AsyncIterator[Registry]:
    """A registry that this machine's engine pulls from."""
    async with registry() as running:
        yield running
