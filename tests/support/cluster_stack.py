"""ML Hub as on Kubernetes, at process level: its services as an overlay has them, its workspaces on a fake cluster.

What runs is what `kubectl kustomize` renders: variables, secrets, files, ports, probes, who may do what. Each pod of a
service is a process with an address of its own, each Service what stands before them. Not there: the network's policies
and a DNS.
"""

import asyncio
import os
import random
import socket
import string
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import yaml

from mlhub_shared.bus import BusSettings
from mlhub_standalone import cluster_secrets
from mlhub_standalone.cluster_api import ClusterApi, Found
from tests.support.authority import Authority
from tests.support.bus_reader import BusReader
from tests.support.cluster_pod import ServicePod
from tests.support.cluster_render import Addresses, Deployed, Place
from tests.support.cluster_service import Balancer
from tests.support.hub_client import HubClient, Session
from tests.support.kube import FakeCluster
from tests.support.manifests.objects import K8S, Workload, find, kustomize, workload
from tests.support.ports import free_port
from tests.support.stack import FAKE_SERVER
from tests.support.waiting import until_async

API_TOKEN = "a-token-of-the-test-that-is-long-enough"
ADMIN, ADMIN_PASSWORD = "admin", "a-password-of-the-test"
HUB = "mlhub"
SERVICES, WORKSPACES = "mlhub", "mlhub-workspaces"
"""The two namespaces."""

PARTS = ("nats", "hub", "spawner-worker", "cleanup", "ssh-gateway", "proxy")

_PORTS = (2200, 2222, 2223, 4222, 6222, 8002, 8003, 8080, 8081, 8084, 8222, 8888)

_BALANCED = ("proxies", "proxy-api", "ssh-gateway-proxied")
"""Services of which there may be several pods; those of one pod at a time are that pod's own address."""

T = TypeVar("T")


class ClusterStack:
    """The whole deployment; pods come and go as a test says."""

    def __init__(self, folder: Path, overlay: str, cluster: FakeCluster, settings: Mapping[str, str]) -> None:
        self.folder, self.cluster = folder, cluster
        self.port = free_port()
        self.authority = Authority() if overlay == "production" else None
        scheme = "https" if self.authority else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        objects = kustomize(_operators_own(folder, overlay, _addresses_of_people(self.url) | dict(settings)))
        self.deployed = Deployed(objects, SERVICES, Addresses(SERVICES, objects), folder, self._secrets())
        self.pods: defaultdict[str, list[ServicePod]] = defaultdict(list)
        trust = self.authority.trust() if self.authority else True
        self.trust = trust
        self.hub = HubClient(self.url, API_TOKEN, trust=trust)
        self.bus = BusReader(self._bus)
        self.started: list[tuple[str, str]] = []
        """Name and generation of every pod of a workspace that was ever made."""
        self._sessions: list[Session] = []
        self._stack = AsyncExitStack()
        role = find(objects, "Role", "spawner-worker", WORKSPACES)
        self._kubeconfig = cluster.kubeconfig(folder / "kubeconfig", cluster.token(role["rules"]))
        labels = find(objects, "Namespace", WORKSPACES)["metadata"]["labels"]
        cluster.enforce(labels["pod-security.kubernetes.io/enforce"])
        cluster.kubelet.program = FAKE_SERVER.split()
        cluster.store.listen(self._look)

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, overlay: str, **settings: str) -> AsyncIterator["ClusterStack"]:
        """One that is up; `settings` are an operator's, added to those of the overlay."""
        async with FakeCluster.open(namespace=WORKSPACES) as cluster:
            stack = cls(folder, overlay, cluster, settings)
            try:
                await stack._up()
                yield stack
            finally:
                await stack._wipe()

    # Pods of the services

    def workload(self, service: str) -> Workload:
        """What the overlay says of it."""
        return workload(self.deployed.objects, service)

    def replicas(self, service: str) -> int:
        """How many there are; where an autoscaler decides, its least."""
        spec = self.workload(service).obj["spec"]
        if "replicas" in spec:
            return int(spec["replicas"])
        return int(find(self.deployed.objects, "HorizontalPodAutoscaler", service, SERVICES)["spec"]["minReplicas"])

    async def start(self, service: str) -> ServicePod:
        """One more pod of a service, not ready yet."""
        found, own = self.workload(service), self.pods[service]
        if found.obj["kind"] == "StatefulSet":
            taken = {pod.name for pod in own}
            name = next(name for number in range(9) if (name := f"{service}-{number}") not in taken)
            address = self.deployed.addresses.of(f"{name}.{service}" if self.replicas(service) > 1 else service)
        else:
            name = f"{service}-{''.join(random.choices(string.ascii_lowercase, k=5))}"
            is_alone = found.obj["spec"].get("strategy", {}).get("type") == "Recreate"
            address = self.deployed.addresses.of(service) if is_alone else self.deployed.addresses.new()
        pod = ServicePod(Place(self.deployed, found, name, address), self._of_this_machine(service, name))
        own.append(pod)
        return await pod.start()

    async def remove(self, pod: ServicePod) -> None:
        """Delete a pod, politely."""
        await pod.retire()
        self.pods[pod.service].remove(pod)

    async def lose(self, pod: ServicePod) -> None:
        """A pod is gone without a word."""
        await pod.kill()
        self.pods[pod.service].remove(pod)

    async def roll(self, service: str) -> None:
        """A new release of a service, pod by pod, in the order that its kind of workload has."""
        kind, spec = self.workload(service).obj["kind"], self.workload(service).obj["spec"]
        is_first_gone = kind == "StatefulSet" or spec.get("strategy", {}).get("type") == "Recreate"
        async with asyncio.TaskGroup() as ending:
            for old in reversed(self.pods[service].copy()):
                if is_first_gone:
                    await self.remove(old)
                await (await self.start(service)).ready()
                if not is_first_gone:
                    # Nobody waits for what has been told to end.
                    ending.create_task(self.remove(old))

    # What people have

    async def ask(self, question: Callable[..., T], *arguments: object, **fields: object) -> T:
        """A question of those that take a while, beside this loop, which is what the cluster itself runs in."""
        return await asyncio.to_thread(question, *arguments, **fields)

    async def spawn(self, user: str, server: str = "", **options: object) -> None:
        """Ask for a workspace, and wait until it is ready."""
        answer = await self.ask(self.hub.spawn, user, server, **options)
        assert answer.status_code in {201, 202}, answer.text

        async def is_ready() -> bool:
            return bool(await self.ask(self.hub.is_ready, user, server))

        await until_async(is_ready)

    async def session(self, user: str = ADMIN, password: str = ADMIN_PASSWORD) -> Session:
        """A browser without a face, logged in."""
        session = Session(self.url, trust=self.trust)
        self._sessions.append(session)
        await self.ask(session.login, user, password)
        return session

    def left(self) -> list[str]:
        """All that there is of workspaces in the cluster."""
        kinds = ("pods", "services", "persistentvolumeclaims", "networkpolicies", "secrets", "configmaps")
        return [f"{kind}/{one['metadata']['name']}" for kind in kinds for one in self.cluster.objects(kind)]

    def report(self) -> str:
        """What all pods said, those that are gone included."""
        logs = sorted((self.folder / "logs").glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-20000:]}" for log in logs)

    # Parts

    async def _up(self) -> None:
        for service in PARTS:
            for _ in range(self.replicas(service)):
                await self.start(service)
        everybody = [pod for pods in self.pods.values() for pod in pods]
        for name in _BALANCED:
            for port in self.deployed.service(name)["spec"]["ports"]:
                await self._balance(name, port["targetPort"], (self.deployed.addresses.of(name), port["port"]))
        await self._balance("proxy", "public", ("127.0.0.1", self.port))
        await asyncio.gather(*(pod.ready() for pod in everybody))

    async def _balance(self, service: str, target: str, place: tuple[str, int]) -> None:
        selector = self.deployed.service(service)["spec"]["selector"]["app.kubernetes.io/name"]
        balancer = Balancer(
            lambda: [pod.address for pod in self.pods[selector] if pod.takes_requests],
            self.workload(selector).ports[target],
        )
        await balancer.open(place)
        self._stack.push_async_callback(balancer.aclose)

    async def _wipe(self) -> None:
        everybody = [pod for pods in self.pods.values() for pod in pods]
        await asyncio.gather(*(pod.kill() for pod in everybody))
        await self._stack.aclose()
        self.hub.close()
        for session in self._sessions:
            session.close()

    def _of_this_machine(self, service: str, name: str) -> dict[str, str]:
        """What a process of this machine is told, and a pod need not be."""
        prefix = f"MLHUB_{service.replace('-', '_').upper()}"
        known = {f"{prefix}_REPLICA": name}
        if service == "proxy":
            # What stays open is waited for to the end of it, and no request of a test takes as long.
            known[f"{prefix}_SHUTDOWN_GRACE"] = "10"
        if service == "spawner-worker":
            # Proxies call from this machine's own address, not from their own.
            known |= {f"{prefix}_KUBECONFIG": str(self._kubeconfig), f"{prefix}_PUBLISH_TO": "localhost"}
        return known

    def _secrets(self) -> dict[str, Mapping[str, str]]:
        """What the Job makes, and what an operator brings."""
        kept = _Kept("no host", 0, SERVICES, "no token", Path())
        cluster_secrets.keep(kept)
        made = kept.made
        given = {"MLHUB_ADMIN_PASSWORD": ADMIN_PASSWORD, "MLHUB_API_TOKEN": API_TOKEN}
        if self.authority is not None:
            given["MLHUB_HUB_DATABASE_URL"] = f"sqlite:///{self.folder / 'hub.sqlite'}"
            self.authority.write(self.folder)
            files = {"tls.crt": "cert.crt", "tls.key": "cert.key"}
            made["certificate"] = {key: (self.folder / file).read_text() for key, file in files.items()}
        return made | {"given": given}

    def _bus(self) -> BusSettings:
        settings = Place(self.deployed, self.workload("hub"), "tests", "127.0.0.1").environment()
        return BusSettings(
            url=settings["MLHUB_NATS_URL"],
            hub=HUB,
            service="tests",
            user=settings["MLHUB_NATS_USER"],
            password=self.deployed.secrets["hub"]["MLHUB_NATS_PASSWORD"].strip(),
            replicas=int(settings["MLHUB_NATS_REPLICAS"]),
        )

    def _look(self, change: object) -> None:
        now = getattr(change, "now", None)
        if now is not None and getattr(change, "type", "") == "ADDED" and now.resource.plural == "pods":
            self.started.append((now.name, now.obj["metadata"]["annotations"]["mlhub.generation"]))


@dataclass(frozen=True)
class _Kept(ClusterApi):
    """Where the Job keeps what it makes."""

    made: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def read(self, name: str) -> Found:
        data = {key: text.encode() for key, text in self.made.get(name, {}).items()}
        return Found(data, "1" if name in self.made else None)

    def create(self, name: str, texts: Mapping[str, str]) -> None:
        self.made[name] = dict(texts)


def missing() -> str | None:
    """Why it can't run here; None if it can: its ports are those of the manifests, at addresses of its own."""
    for port in _PORTS:
        try:
            socket.create_server(("127.255.0.1", port)).close()
        except OSError as error:
            return f"port {port} of this machine is taken on all of its addresses: {error.strerror}"
    return None


def _addresses_of_people(url: str) -> dict[str, str]:
    port = url.rpartition(":")[2]
    return {"MLHUB_HUB_PUBLIC_URL": url, "MLHUB_HUB_SSH_HOST": "127.0.0.1", "MLHUB_HUB_SSH_PORT": port}


def _operators_own(folder: Path, overlay: str, settings: Mapping[str, str]) -> Path:
    """An overlay on ours, as an operator writes one."""
    own = folder / "overlay"
    own.mkdir()
    literals = [f"{name}={value}" for name, value in settings.items()]
    made = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(K8S / "overlays" / overlay, own.resolve())],
        "configMapGenerator": [{"name": "settings", "namespace": SERVICES, "behavior": "merge", "literals": literals}],
    }
    (own / "kustomization.yaml").write_text(yaml.safe_dump(made))
    return own.resolve()
