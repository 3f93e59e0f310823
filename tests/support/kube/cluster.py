"""The cluster as tests hold it."""

import asyncio
import contextlib
import json
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.kube.access import Access, Rule, User
from tests.support.kube.api import Api, Call, application
from tests.support.kube.deletion import Collector, DeleteOptions, Deletion
from tests.support.kube.events import Recorder
from tests.support.kube.exec import Exec
from tests.support.kube.faults import Faults
from tests.support.kube.isolated import Isolated
from tests.support.kube.kubelet import Kubelet
from tests.support.kube.portforward import PortForward
from tests.support.kube.resources import BY_PLURAL, Obj
from tests.support.kube.scripts import Timing
from tests.support.kube.store import Store, Stored
from tests.support.kube.verbs import Place, Verbs

_WRITES = {"create", "update", "patch", "delete", "deletecollection"}
_NAMESPACES = ("default", "kube-system")


class FakeCluster:
    """One API server with a node, in this process; see the package."""

    def __init__(self, namespace: str, folder: Path) -> None:
        self.namespace = namespace
        """The one that workspaces are meant for."""
        self.store = Store()
        self.access = Access()
        self.events = Recorder(self.store)
        self._deletion = Deletion(self.store)
        self.collector = Collector(self.store, self._deletion)
        self.kubelet = Kubelet(self.store, self._deletion, self.events, folder)
        self._verbs = Verbs(self.store, self._deletion)
        self._api = Api(self.store, self._verbs, self.access, self.kubelet)
        self._api.faults = self.faults = Faults(self, self.access.revoked, self.store.compact)
        self._api.streams["exec"] = Exec(self.kubelet, self._verbs).serve
        self._api.streams["portforward"] = PortForward(self.kubelet, self._verbs).serve
        self._runner = web.AppRunner(application(self._api), handler_cancellation=True, access_log=None)
        self._server: asyncio.Server | None = None
        self._port = 0
        for name in dict.fromkeys((*_NAMESPACES, namespace)):
            self.add_namespace(name)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        namespace: str = "mlhub-workspaces",
        *,
        port: int = 0,
        processes: bool = True,
        isolated: bool = False,
        timing: Timing | None = None,
    ) -> AsyncIterator["FakeCluster"]:
        """Serve it on a port of the loopback (0: a free one); leaving ends every pod.

        `processes`: containers really run. `isolated`: in a network of the pod's own, see isolated.py.
        """
        folder = Path(tempfile.mkdtemp(prefix="fake-kube-"))
        cluster = cls(namespace, folder)
        cluster._port, cluster.kubelet.processes = port, processes
        if isolated:
            cluster.kubelet.make_sandbox = Isolated
        cluster.kubelet.timing = timing or cluster.kubelet.timing
        try:
            await cluster._runner.setup()
            await cluster.listen_again()
            yield cluster
        finally:
            await cluster.stop_listening()
            await cluster._runner.cleanup()
            await cluster.kubelet.aclose()
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """Of the API."""
        return f"http://127.0.0.1:{self._port}"

    # Who may ask

    def token(self, rules: Sequence[Rule] | None = None, *, name: str = "spawner-worker", namespace: str = "") -> str:
        """A token of a service account that a Role with these rules is bound to. None: it may do everything."""
        token = secrets.token_urlsafe(24)
        self.give(token, rules, name=name, namespace=namespace)
        return token

    def give(
        self, token: str, rules: Sequence[Rule] | None = None, *, name: str = "spawner-worker", namespace: str = ""
    ) -> None:
        """The same with a token that is known before."""
        namespace = namespace or self.namespace
        self.access.users[token] = User(f"system:serviceaccount:{namespace}:{name}", namespace, rules)

    def kubeconfig(self, path: Path, token: str | None = None) -> Path:
        """Write a kubeconfig; without a token, one of somebody who may do everything."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "worker", "user": {"token": token or self.token()}}],
            "contexts": [{"name": "c", "context": {"cluster": "fake", "user": "worker", "namespace": self.namespace}}],
            "current-context": "c",
        }
        path.write_text(json.dumps(config))
        path.chmod(0o600)
        return path

    # What is there

    def objects(self, plural: str, namespace: str = "") -> list[Obj]:
        """All of a kind in a namespace (empty: the workspaces'; `*`: all)."""
        where = "" if namespace == "*" or not BY_PLURAL[plural].is_namespaced else namespace or self.namespace
        return [stored.obj for stored in self.store.all(plural, where)]

    def get(self, plural: str, name: str, namespace: str = "") -> Obj | None:
        """One object, if it is there."""
        stored = self._stored(plural, name, namespace)
        return stored.obj if stored else None

    def create(self, plural: str, obj: Obj, namespace: str = "") -> Obj:
        """Add an object as an admin would."""
        where = "" if not BY_PLURAL[plural].is_namespaced else namespace or self.namespace
        self._verbs.create(Place(BY_PLURAL[plural], where), obj, {})
        found = self.get(plural, obj["metadata"]["name"], where)
        assert found is not None
        return found

    def delete(self, plural: str, name: str, namespace: str = "") -> None:
        """Delete one as an admin would."""
        stored = self._stored(plural, name, namespace)
        assert stored is not None, f"no {plural} {name}"
        self._deletion.delete(stored, DeleteOptions())

    def add_namespace(self, name: str, **labels: str) -> None:
        """A namespace with its default service account."""
        self._verbs.create(Place(BY_PLURAL["namespaces"]), {"metadata": {"name": name, "labels": labels}}, {})
        self.create("serviceaccounts", {"metadata": {"name": "default"}}, name)

    def remove_namespace(self, name: str = "") -> None:
        """A namespace with all that is in it, at once."""
        name = name or self.namespace
        self.store.remove(self._verbs.found(Place(BY_PLURAL["namespaces"], "", name)))
        self._verbs.empty(name)

    def enforce(self, level: str) -> None:
        """PodSecurity of the workspaces' namespace: `privileged`, `baseline`, `restricted`."""
        stored = self._verbs.found(Place(BY_PLURAL["namespaces"], "", self.namespace))
        metadata = stored.obj["metadata"]
        labels = {**metadata["labels"], "pod-security.kubernetes.io/enforce": level}
        self.store.replace(stored, {**stored.obj, "metadata": {**metadata, "labels": labels}})

    def quota(self, name: str = "small", **hard: str) -> None:
        """A ResourceQuota of the workspaces' namespace: `pods="1"`, `**{"requests.cpu": "2"}`; anew if it is there."""
        if self.get("resourcequotas", name):
            self.delete("resourcequotas", name)
        if hard:
            self.create("resourcequotas", {"metadata": {"name": name}, "spec": {"hard": hard}})

    def limit_range(self, **limits: dict[str, str]) -> None:
        """A LimitRange for containers: `max={"memory": "128Mi"}`, `default=…`, `defaultRequest=…`."""
        spec = {"limits": [{"type": "Container", **limits}]}
        self.create("limitranges", {"metadata": {"name": "limits"}, "spec": spec})

    # What was asked

    @property
    def requests(self) -> list[Call]:
        """Every request so far, in order."""
        return self._api.calls

    @property
    def writes(self) -> Counter[tuple[str, str]]:
        """How often each verb that changes something was asked of each resource, refused ones included."""
        return Counter((call.verb, call.resource) for call in self.requests if call.verb in _WRITES)

    @property
    def reads(self) -> Counter[tuple[str, str]]:
        """Likewise for the others."""
        return Counter((call.verb, call.resource) for call in self.requests if call.verb not in _WRITES)

    def forget_requests(self) -> None:
        """Count anew."""
        self.requests.clear()

    # The server's port, for faults

    async def stop_listening(self) -> None:
        """Leave the port, and break every connection."""
        if self._server is None:
            return
        self._server.close()
        server, self._server = self._server, None
        handlers: Any = self._runner.server
        for handler in list(handlers.connections) if handlers else ():
            if handler.transport is not None:
                handler.transport.abort()
        await server.wait_closed()

    async def listen_again(self) -> None:
        """Be there."""
        assert self._runner.server is not None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._runner.server, "127.0.0.1", self._port, reuse_address=True)
        self._port = self._server.sockets[0].getsockname()[1]

    def _stored(self, plural: str, name: str, namespace: str) -> Stored | None:
        where = "" if not BY_PLURAL[plural].is_namespaced else namespace or self.namespace
        return self.store.get(plural, where, name)
