"""Kubernetes backends for tests: on the fake API server, or on the cluster of KUBECONFIG."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mlhub_shared.contracts.policy import Profile
from mlhub_shared.errors import MLHubError
from mlhub_spawner_worker.backends.kubernetes import KubernetesBackend, KubernetesSettings, marks
from mlhub_spawner_worker.backends.kubernetes.client import CLAIMS, PODS, POLICIES, Json, Kind, KubeClient
from mlhub_spawner_worker.backends.kubernetes.rights import RIGHTS, Right
from mlhub_spawner_worker.backends.kubernetes.watching import Pace
from tests.support.kube import FakeCluster
from tests.support.kube.access import Rule

IMAGE = "python:3.12-alpine"
PORT = 8888

_LOOK_AGAIN = 0.5
"""Seconds until what has been removed is looked for again."""

_SERVER = Path(__file__).with_name("workspace_server.py")

PACE = Pace(lasting=timedelta(seconds=5), silence=timedelta(seconds=8), most=timedelta(seconds=0.5))
"""Of watches in tests: outages are short here."""


def rules(*, without: Right | None = None) -> list[Rule]:
    """The worker's Role, as the manifests grant it."""
    return [
        {"apiGroups": [right.group], "resources": [right.resource], "verbs": [right.verb]}
        for right in RIGHTS
        if right != without
    ]


def profile(**changes: Any) -> Profile:
    """One that every test can run."""
    values: dict[str, Any] = {"name": "default", "image": IMAGE, "port": PORT, "kubernetes": {"volume_size": "1G"}}
    return Profile(**(values | changes))


def kubernetes_backend(kubeconfig: Path, hub: str, *, pace: Pace = PACE, **changes: Any) -> KubernetesBackend:
    """A backend that has waited for the API for a few seconds at most when it gives up."""
    values: dict[str, Any] = {
        "profiles": (profile(),),
        "stop_grace": timedelta(seconds=1),
        "prepare_timeout": timedelta(seconds=60),
        "image_patience": timedelta(seconds=1),
        "gone_within": timedelta(seconds=3),
    }
    return KubernetesBackend(KubernetesSettings(hub=hub, kubeconfig=kubeconfig, **(values | changes)), pace=pace)


def fake_backend(cluster: FakeCluster, folder: Path, hub: str, **changes: Any) -> KubernetesBackend:
    """One with the worker's own Role and nothing else."""
    return kubernetes_backend(cluster.kubeconfig(folder / "kubeconfig", cluster.token(rules())), hub, **changes)


def need_cluster() -> Path:
    """The kubeconfig of a real cluster; skips the test without one."""
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig or os.environ.get("MLHUB_TEST_KUBERNETES") != "1":
        pytest.skip("no real cluster: set KUBECONFIG and MLHUB_TEST_KUBERNETES=1")
    return Path(kubeconfig)


def cluster_backend(kubeconfig: Path, hub: str) -> KubernetesBackend:
    """One for a real cluster: it runs the tests' own server in an image that has Python."""
    command = ("python3", "-c", _SERVER.read_text())
    image = os.environ.get("MLHUB_TEST_IMAGE", IMAGE)
    runs = profile(image=image, command=command, user="1000:1000", default_mem="128M")
    changes = {"prepare_timeout": timedelta(minutes=3), "gone_within": timedelta(seconds=60)}
    return kubernetes_backend(kubeconfig, hub, pace=Pace(), profiles=(runs,), **changes)


@contextlib.asynccontextmanager
async def left_clean(kubeconfig: Path, hub: str, *, within: float = 120) -> AsyncIterator[None]:
    """Nothing of this hub is left on a cluster afterwards; it fails where something stays for so many seconds."""
    client = KubeClient(kubeconfig=kubeconfig, namespace=None)
    await client.open()
    try:
        yield
    finally:
        left = await _cleared(client, hub, within)
        await client.aclose()
        assert not left, f"left in the namespace {client.namespace}: {', '.join(left)}"


async def _cleared(client: KubeClient, hub: str, within: float) -> list[str]:
    """What is still there in the end."""
    deadline = time.monotonic() + within
    while True:
        left = [(kind, thing) for kind in (PODS, CLAIMS) for thing in await _of_hub(client, kind, hub)]
        if not left or time.monotonic() > deadline:
            return [f"{kind.resource}/{thing['metadata']['name']}" for kind, thing in left]
        for kind, thing in left:
            if "deletionTimestamp" not in thing["metadata"]:
                await _remove(client, kind, thing["metadata"]["name"])
        await asyncio.sleep(_LOOK_AGAIN)


async def _of_hub(client: KubeClient, kind: Kind, hub: str) -> list[Json]:
    return [thing async for page in client.pages(kind, labels=marks.selector(hub)) for thing in page.items]


async def _remove(client: KubeClient, kind: Kind, name: str) -> None:
    """Once more in a moment, where it can't be just now."""
    with contextlib.suppress(MLHubError):
        await client.delete(kind, name, grace=1 if kind is PODS else None)
    with contextlib.suppress(MLHubError):
        await client.delete(POLICIES, name)
