"""Fixtures of the kubernetes backend's tests: a fake cluster, a hub, and backends for it that come and go."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord, WorkspaceSecrets, WorkspaceSpec
from mlhub_spawner_worker.backends.base import Exit, Job, Running
from mlhub_spawner_worker.backends.kubernetes import KubernetesBackend
from mlhub_spawner_worker.backends.kubernetes.client import Kind
from tests.support.kube import FakeCluster
from tests.support.kube.access import Rule
from tests.support.kube_backend import kubernetes_backend, rules
from tests.support.makers import base_url
from tests.support.makers import record as make_record

HUB = "test"

KINDS = ("pods", "services", "persistentvolumeclaims", "networkpolicies")
"""All that a workspace consists of."""


class Stand:
    """A hub on a cluster."""

    def __init__(self, cluster: FakeCluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.said: list[tuple[int, str]] = []
        """What was reported while preparing."""

    def made(self, *, role: list[Rule] | None = None, **changes: Any) -> KubernetesBackend:
        """A backend that is not open yet, with the worker's own Role unless there is another one."""
        token = self.cluster.token(rules() if role is None else role)
        return kubernetes_backend(self.cluster.kubeconfig(self.folder / "kubeconfig", token), HUB, **changes)

    @contextlib.asynccontextmanager
    async def backend(self, **changes: Any) -> AsyncIterator[KubernetesBackend]:
        """A worker's backend; leaving it is the end of the worker."""
        backend = self.made(**changes)
        await backend.open()
        try:
            yield backend
        finally:
            await backend.aclose()

    def record(self, user: str = "alice", server: str = "", **fields: Any) -> WorkspaceRecord:
        """A record of this hub, about to be prepared."""
        target = WorkspaceId(hub=HUB, user=user, server=server)
        changes = {"workspace": target, "base_url": base_url(target), "node": "kubernetes"}
        fields.setdefault("phase", Phase.PREPARING)
        return make_record(user, server, **fields).model_copy(update=changes)

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

    def told(self, text: str) -> bool:
        """Whether that was reported."""
        return any(text in message for _, message in self.said)

    async def run(self, backend: KubernetesBackend, job: Job) -> Running:
        """Prepare and start."""
        await backend.prepare(job, self.report)
        return await backend.start(job)

    async def ends(self, backend: KubernetesBackend, job: Job) -> Exit:
        """Run it to its end."""
        await self.run(backend, job)
        return await backend.wait(job.name)

    async def changed_by_others(self, kind: Kind, thing: dict[str, Any]) -> None:
        """Apply it as somebody with all rights does, at the cost of whoever has set the same."""
        url = f"{self.cluster.url}/{kind.api}/namespaces/{self.cluster.namespace}/{kind.resource}"
        async with (
            aiohttp.ClientSession() as session,
            session.patch(
                f"{url}/{thing['metadata']['name']}",
                params={"fieldManager": "somebody", "force": "true"},
                headers={
                    "Authorization": f"Bearer {self.cluster.token()}",
                    "Content-Type": "application/apply-patch+yaml",
                },
                data=json.dumps(thing),
            ) as answer,
        ):
            assert answer.status < 300, await answer.text()

    def left(self) -> dict[str, list[str]]:
        """Everything of any workspace, by kind."""
        found = {kind: sorted(one["metadata"]["name"] for one in self.cluster.objects(kind)) for kind in KINDS}
        return {kind: names for kind, names in found.items() if names}


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    """A hub on a cluster of the test's own, where pods are as the scripts say and nothing really runs."""
    async with FakeCluster.open(processes=False) as cluster:
        yield Stand(cluster, tmp_path)
