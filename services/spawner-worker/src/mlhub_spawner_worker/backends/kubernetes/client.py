"""The worker's one client of the Kubernetes API: plain JSON, every call with a bound and the right that it needs."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import getproxies

import aiohttp
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, Configuration

from mlhub_shared.errors import Permanent
from mlhub_spawner_worker.backends.base import BackendError
from mlhub_spawner_worker.backends.kubernetes.identity import cluster_marks
from mlhub_spawner_worker.backends.kubernetes.refusals import ApiAway, refusal, unheard
from mlhub_spawner_worker.backends.kubernetes.rights import Right, right

Json = dict[str, Any]

_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""In every pod that has a token."""

_WITHIN = 15.0
"""Seconds for a call; the server itself gives up on webhooks and its store after ten."""

_CONNECT_WITHIN = 5.0
"""Seconds for a connection."""

_LONGEST = 2**22
"""Bytes of a line that a watch may tell: more than twice as much as the API keeps of one thing."""

_PAGE = 100
"""Things of a list that are asked for at a time. Nothing else is done while they are parsed: 100 pods take 20 ms."""


@dataclass(frozen=True)
class Kind:
    """A kind of things in a namespace."""

    api: str
    """Path and version of its group."""
    resource: str


@dataclass(frozen=True)
class Page:
    """Some of all the things of a kind."""

    items: list[Json]
    version: str
    """Of the whole list, the same on each page: a watch goes on from there."""


PODS = Kind("api/v1", "pods")
EVENTS = Kind("api/v1", "events")
SERVICES = Kind("api/v1", "services")
CLAIMS = Kind("api/v1", "persistentvolumeclaims")
POLICIES = Kind("apis/networking.k8s.io/v1", "networkpolicies")

_JSON = "application/json"
_MERGE = "application/merge-patch+json"


class KubeClient:
    """Calls the API for one namespace. What it can't have is one of `refusals`."""

    def __init__(self, *, kubeconfig: Path | None, namespace: str | None) -> None:
        """Without a kubeconfig as the service account of its own pod; without a namespace in that one's."""
        self._kubeconfig, self._wanted = kubeconfig, namespace
        self.namespace = namespace or ""
        """Of the workspaces; known once it is open."""
        self.own_namespace: str | None = None
        """Of the worker's own pod; None outside of a cluster."""
        self.marks: list[str] = []
        """Of the cluster, whoever asks; known once it is open."""
        self.configuration = Configuration()
        """Of clients for other purposes."""
        self._api: ApiClient | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read how the API is reached; Permanent if nothing tells. Nothing is sent yet."""
        try:
            if self._kubeconfig is not None:
                await self._read_kubeconfig(self._kubeconfig)
            else:
                await asyncio.to_thread(self._read_own)
            self.marks = await asyncio.to_thread(cluster_marks, self.configuration)
        except (config.ConfigException, OSError, ValueError) as error:
            where = self._kubeconfig or "this pod's service account"
            raise Permanent(f"the Kubernetes API can't be reached by {where}: {error}") from error
        self.configuration.connection_pool_maxsize = 0
        self._api = _lean(ApiClient(self.configuration))

    async def aclose(self) -> None:
        """Let go of all connections."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        if self._api is not None:
            await self._api.close()

    # Writes

    async def create(self, kind: Kind, body: Json) -> Json:
        """Make it; Taken if something of its name is there."""
        return await self._call(right(kind.resource, "create"), "POST", self._path(kind), body=body)

    async def change(self, kind: Kind, body: Json, *, version: str) -> Json:
        """Set what the body says; Missing if it is not there, Moved if it is not of that version any more."""
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": version}}
        return await self._patch(kind, body["metadata"]["name"], body)

    async def annotate(self, kind: Kind, name: str, annotations: dict[str, str]) -> None:
        """Set annotations; Missing if it is not there."""
        await self._patch(kind, name, {"metadata": {"annotations": annotations}})

    async def _patch(self, kind: Kind, name: str, body: Json) -> Json:
        path, asked = self._path(kind, name), right(kind.resource, "patch")
        return await self._call(asked, "PATCH", path, body=body, content=_MERGE, name=name)

    async def delete(
        self, kind: Kind, name: str, *, uid: str | None = None, version: str | None = None, grace: int | None = None
    ) -> None:
        """Begin to remove it; Missing if it is not there, Moved if it is another one, or not of that version."""
        body: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        before = {"uid": uid, "resourceVersion": version}
        body["preconditions"] = {name: value for name, value in before.items() if value is not None}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        path = self._path(kind, name)
        await self._call(right(kind.resource, "delete"), "DELETE", path, body=body, name=name)

    # Reads

    async def read(self, kind: Kind, name: str) -> Json:
        """It as it is; Missing if it is not there."""
        return await self._call(right(kind.resource, "get"), "GET", self._path(kind, name), name=name)

    async def pages(self, kind: Kind, *, labels: str = "", fields: str = "") -> AsyncIterator[Page]:
        """All of them, some at a time: whole things are large, and nobody should hold thousands."""
        token, is_last = "", False
        while not is_last:
            listed = await self._page(kind, labels, fields, most=_PAGE, token=token)
            metadata = listed.get("metadata") or {}
            token = metadata.get("continue") or ""
            is_last = not token
            yield Page(listed.get("items") or [], str(metadata.get("resourceVersion", "")))

    async def version(self, kind: Kind, *, fields: str = "") -> str:
        """The version that a watch goes on from, for those who do not care about what was."""
        page = await self._page(kind, "", fields, most=1)
        return str((page.get("metadata") or {}).get("resourceVersion", ""))

    async def log(self, pod: str, container: str, *, lines: int, within: float) -> str:
        """The last lines of a container's log."""
        query = [("container", container), ("tailLines", str(lines))]
        asked = right("pods/log", "get")
        async with self._answer(
            asked, "GET", f"{self._path(PODS, pod)}/log", query=query, within=within, name=pod
        ) as answer:
            return (await answer.read()).decode(errors="replace")

    async def watch(
        self,
        kind: Kind,
        version: str,
        *,
        labels: str = "",
        fields: str = "",
        lasting: int,
        silence: float,
        opened: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[Json, None]:
        """Everything that happens after that version, for as long as `lasting`; ApiAway after so much `silence`."""
        query = [
            ("watch", "true"),
            ("resourceVersion", version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(lasting)),
            *_selectors(labels, fields),
        ]
        limit = aiohttp.ClientTimeout(sock_connect=_CONNECT_WITHIN, sock_read=silence)
        asked = right(kind.resource, "watch")
        async with self._answer(asked, "GET", self._path(kind), query=query, within=limit) as answer:
            opened()
            async for line in _lines(answer.content):
                if line.strip():
                    yield self._event(line, asked)

    def _event(self, line: bytes, asked: Right) -> Json:
        event = json.loads(line)
        if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
            raise ValueError("what came is no event")
        if event.get("type") == "ERROR":
            status = event["object"]
            raise refusal(int(status.get("code") or 500), json.dumps(status), right=asked, namespace=self.namespace)
        return event

    async def _page(self, kind: Kind, labels: str, fields: str, *, most: int, token: str = "") -> Json:
        query = [("limit", str(most)), *_selectors(labels, fields), *([("continue", token)] if token else [])]
        return await self._call(right(kind.resource, "list"), "GET", self._path(kind), query=query)

    async def _call(
        self,
        asked: Right,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        query: list[tuple[str, str]] | None = None,
        content: str = _JSON,
        name: str = "",
    ) -> Json:
        async with self._answer(asked, method, path, body=body, query=query, content=content, name=name) as answer:
            told = json.loads(await answer.read())
            if not isinstance(told, dict):
                raise ValueError("the answer is no object")
            return told

    @asynccontextmanager
    async def _answer(
        self,
        asked: Right,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        query: list[tuple[str, str]] | None = None,
        content: str = _JSON,
        within: float | aiohttp.ClientTimeout = _WITHIN,
        name: str = "",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._api is None:
            raise ApiAway("the client of the Kubernetes API is not open")
        if not isinstance(within, aiohttp.ClientTimeout):
            within = aiohttp.ClientTimeout(total=within, sock_connect=_CONNECT_WITHIN)
        try:
            answer: aiohttp.ClientResponse = await self._api.call_api(
                path,
                method,
                query_params=list(query or ()),
                header_params={"Accept": _JSON, "Content-Type": content},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=within,
            )
            async with answer:
                if answer.status >= 300:
                    raise refusal(
                        answer.status,
                        (await answer.read()).decode(errors="replace"),
                        right=asked,
                        namespace=self.namespace,
                        name=name,
                        retry_after=answer.headers.get("Retry-After", ""),
                    )
                yield answer
        except TimeoutError as error:
            raise ApiAway(f"The Kubernetes API took too long to {asked}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise unheard(error) from error

    def _path(self, kind: Kind, name: str = "") -> str:
        path = f"/{kind.api}/namespaces/{self.namespace}/{kind.resource}"
        return f"{path}/{name}" if name else path

    async def _read_kubeconfig(self, file: Path) -> None:
        loader = await config.load_kube_config(str(file), client_configuration=self.configuration, persist_config=False)
        context = loader.current_context or {}
        self.namespace = self._wanted or (context.get("context") or {}).get("namespace") or "default"
        # Where a program hands out tokens: they end. For all others it returns at once.
        self._refreshing = asyncio.ensure_future(config.refresh_token(loader, self.configuration))

    def _read_own(self) -> None:
        config.load_incluster_config(client_configuration=self.configuration)
        self.own_namespace = _OWN_NAMESPACE.read_text().strip()
        self.namespace = self._wanted or self.own_namespace


def _lean(api: ApiClient) -> ApiClient:
    """Its session, but for looking up logins and proxies of this machine anew, in two threads, at every single call."""
    if not getproxies():
        session = api.rest_client.pool_manager
        connector = session.connector
        session.detach()
        api.rest_client.pool_manager = aiohttp.ClientSession(connector=connector)
    return api


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Its lines; the reader's own refuse those that are longer than its buffer. BackendError beyond all reason."""
    rest = bytearray()
    async for piece in stream.iter_any():
        looked = len(rest)
        rest += piece
        while (end := rest.find(b"\n", looked)) >= 0:
            yield bytes(rest[:end])
            del rest[: end + 1]
            looked = 0
        if len(rest) > _LONGEST:
            raise BackendError(f"The Kubernetes API tells more than {_LONGEST >> 20} MiB of a single thing")
    yield bytes(rest)


def _selectors(labels: str, fields: str) -> list[tuple[str, str]]:
    named = (("labelSelector", labels), ("fieldSelector", fields))
    return [(name, value) for name, value in named if value]
