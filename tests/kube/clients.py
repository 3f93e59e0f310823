"""What the tests ask a cluster with: the client that the product uses, and bare HTTP."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from kubernetes_asyncio import client, config
from kubernetes_asyncio.client import ApiException
from kubernetes_asyncio.stream import WsApiClient

from tests.support.kube import FakeCluster

Obj = dict[str, Any]


@dataclass
class Clients:
    """All that a test needs to talk to a cluster."""

    cluster: FakeCluster
    core: Any
    """CoreV1Api, which takes plain dicts and is typed as if it took models alone."""
    networking: Any
    sockets: Any
    """CoreV1Api for exec and port-forward."""
    http: aiohttp.ClientSession
    """With the same token."""

    @property
    def namespace(self) -> str:
        """The workspaces'."""
        return self.cluster.namespace

    def url(self, plural: str, name: str = "") -> str:
        """Of core objects in that namespace."""
        return f"{self.cluster.url}/api/v1/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")


@contextlib.asynccontextmanager
async def clients_of(cluster: FakeCluster, folder: Path, token: str | None = None) -> AsyncIterator[Clients]:
    """Clients with one token; None: of somebody who may do everything."""
    token = token or cluster.token()
    settings = client.Configuration()
    path = str(cluster.kubeconfig(folder / "kubeconfig", token))
    await config.load_kube_config(path, client_configuration=settings)
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        client.ApiClient(settings) as api,
        WsApiClient(settings) as sockets,
        aiohttp.ClientSession(headers=headers) as http,
    ):
        yield Clients(cluster, client.CoreV1Api(api), client.NetworkingV1Api(api), client.CoreV1Api(sockets), http)


async def refused(call: Awaitable[Any], code: int, reason: str = "") -> Obj:
    """The Status with which a call is refused."""
    with pytest.raises(ApiException) as caught:
        await call
    assert caught.value.status == code, caught.value.body
    status: Obj = json.loads(caught.value.body or "{}")
    assert (status["kind"], status["code"], status["status"]) == ("Status", code, "Failure")
    if reason:
        assert status["reason"] == reason
    return status


def pod(name: str = "w", *, spec: Obj | None = None, container: Obj | None = None, **metadata: Any) -> Obj:
    """A pod as the worker makes them, with changes."""
    main = {
        "name": "workspace",
        "image": "registry.test/lab:1",
        "env": [{"name": "JUPYTERHUB_SERVICE_URL", "value": "http://0.0.0.0:8888/user/ann/"}],
        **(container or {}),
    }
    given = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 5,
        "automountServiceAccountToken": False,
        "containers": [main],
        **(spec or {}),
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": given}


def mounting(claim_name: str, path: str = "/home/jovyan") -> Obj:
    """What a pod that mounts a claim needs."""
    return {
        "spec": {"volumes": [{"name": "home", "persistentVolumeClaim": {"claimName": claim_name}}]},
        "container": {
            "volumeMounts": [{"name": "home", "mountPath": path}],
            "env": [
                {"name": "JUPYTERHUB_SERVICE_URL", "value": "http://0.0.0.0:8888/user/ann/"},
                {"name": "HOME", "value": path},
            ],
        },
    }


def claim(name: str = "w", **metadata: Any) -> Obj:
    """A claim of 1 GiB."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": name, **metadata}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def service(name: str = "w", **metadata: Any) -> Obj:
    """A headless service."""
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "ports": [{"port": 8888}], "selector": {"w": name}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, **metadata}, "spec": spec}


def owner(obj: Obj, kind: str, **more: Any) -> list[Obj]:
    """A reference to a stored object."""
    metadata = obj["metadata"]
    return [{"apiVersion": "v1", "kind": kind, "name": metadata["name"], "uid": metadata["uid"], **more}]


def state(cluster: FakeCluster, name: str = "w") -> Obj:
    """Of a pod's container: `waiting`, `running` or `terminated`."""
    found = cluster.get("pods", name)
    statuses = (found or {}).get("status", {}).get("containerStatuses") or [{"state": {}}]
    return dict(statuses[0]["state"])


def phase(cluster: FakeCluster, name: str = "w") -> str:
    """Of a pod; empty: there is none."""
    found = cluster.get("pods", name)
    return str(found["status"]["phase"]) if found else ""


def condition(cluster: FakeCluster, kind: str, name: str = "w") -> Obj:
    """One of a pod's conditions, or nothing."""
    found = cluster.get("pods", name)
    conditions = (found or {}).get("status", {}).get("conditions", ())
    return next((dict(one) for one in conditions if one["type"] == kind), {})


async def answer_of(k8s: Clients, name: str = "w") -> int:
    """Status with which a pod's program answers, once it does."""
    found = k8s.cluster.get("pods", name)
    assert found is not None
    url = f"http://{found['status']['podIP']}:8888/user/ann/api"
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with k8s.http.get(url) as answer:
                    return answer.status
            await asyncio.sleep(0.05)


def reasons(cluster: FakeCluster) -> list[str]:
    """Of all events, in order."""
    return [str(event["reason"]) for event in cluster.objects("events")]
