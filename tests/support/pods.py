"""Pods to enter: of the fake cluster, and of a real one where the environment names it."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, Configuration, CoreV1Api
from kubernetes_asyncio.stream import WsApiClient

from tests.support.kube import FakeCluster
from tests.support.waiting import until_async

HAS_CLUSTER = bool(os.environ.get("KUBECONFIG")) and os.environ.get("MLHUB_TEST_KUBERNETES") == "1"
IMAGE = os.environ.get("MLHUB_TEST_IMAGE", "python:3.11-slim")
"""Of a real cluster's pods; it has python3."""
BARE_IMAGE = "busybox:stable"
"""Likewise; it has none."""
_OWN = "/mlhub-test"
"""Directory of a pod. Of a fake one there must be none of this name on this machine: it would be taken for it."""
_WITHIN = 10


@dataclass
class Pods:
    """A namespace of a cluster."""

    configuration: Configuration
    namespace: str
    fake: FakeCluster | None = None

    @asynccontextmanager
    async def running(self, image: str = IMAGE, **environment: str) -> AsyncIterator["Pod"]:
        """A pod that does nothing, gone afterwards."""
        async with ApiClient(self.configuration) as client:
            core, name = CoreV1Api(client), f"mlhub-attach-{uuid.uuid4().hex[:8]}"
            await core.create_namespaced_pod(self.namespace, _body(name, image, environment), _request_timeout=_WITHIN)
            pod = Pod(self, core, name)
            try:
                await until_async(pod.is_running, within=120 if self.fake is None else 20)
                yield pod
            finally:
                if not await pod.is_gone():
                    await pod.delete()


@dataclass
class Pod:
    """One of them."""

    pods: Pods
    core: CoreV1Api
    name: str

    async def address(self) -> str:
        """Its own."""
        found = await self.core.read_namespaced_pod(self.name, self.pods.namespace, _request_timeout=_WITHIN)
        return str(found.status.pod_ip)

    async def is_running(self) -> bool:
        found = await self.core.read_namespaced_pod(self.name, self.pods.namespace, _request_timeout=_WITHIN)
        return bool(found.status.phase == "Running")

    async def is_gone(self) -> bool:
        selector = f"metadata.name={self.name}"
        found = await self.core.list_namespaced_pod(
            self.pods.namespace, field_selector=selector, _request_timeout=_WITHIN
        )
        return not found.items

    async def delete(self) -> None:
        """Return once it is gone."""
        await self.core.delete_namespaced_pod(
            self.name, self.pods.namespace, grace_period_seconds=1, _request_timeout=_WITHIN
        )
        await until_async(self.is_gone)

    async def inside(self, line: str) -> str:
        """What a command says there, by the library's own way in."""
        command: Any = ["/bin/sh", "-c", f"exec 2>/dev/null\n{line}"]  # the library's types know of one word alone
        async with WsApiClient(self.pods.configuration) as client, asyncio.timeout(30):
            said: str = await CoreV1Api(client).connect_get_namespaced_pod_exec(
                self.name,
                self.pods.namespace,
                container="workspace",
                command=command,
                stdin=False,
                stdout=True,
                stderr=False,
                tty=False,
            )
            return said


@asynccontextmanager
async def fake_pods(folder: Path) -> AsyncIterator[Pods]:
    """Of a fake cluster of the test's own."""
    async with FakeCluster.open() as cluster:
        yield await _pods(cluster.kubeconfig(folder / "kubeconfig"), cluster)


@asynccontextmanager
async def real_pods() -> AsyncIterator[Pods]:
    """Of the cluster that the environment names."""
    yield await _pods(Path(os.environ["KUBECONFIG"]), None)


async def _pods(kubeconfig: Path, fake: FakeCluster | None) -> Pods:
    configuration = Configuration()
    loader = await config.load_kube_config(str(kubeconfig), client_configuration=configuration, persist_config=False)
    configuration.connection_pool_maxsize = 0
    context: dict[str, Any] = (loader.current_context or {}).get("context") or {}
    return Pods(configuration, context.get("namespace") or "default", fake)


def _body(name: str, image: str, environment: dict[str, str]) -> Any:
    """As the strictest namespaces admit it, with a directory of its user's own."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "fsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "workspace",
                    "image": image,
                    "command": ["sleep", "infinity"],
                    "workingDir": _OWN,
                    "env": [{"name": name, "value": value} for name, value in environment.items()],
                    "volumeMounts": [{"name": "work", "mountPath": _OWN}],
                    "resources": {
                        "requests": {"cpu": "50m", "memory": "128Mi"},
                        "limits": {"cpu": "2", "memory": "512Mi"},
                    },
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
            "volumes": [{"name": "work", "emptyDir": {}}],
        },
    }
