"""The API's plain client: the same creates for each workspace, one watch, and nothing else."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kubernetes_asyncio import client, config, watch

from tests.bench.cluster.place import ClusterPlace

_KINDS = ("persistent_volume_claim", "network_policy", "pod", "service")
_OURS = "mlhub.origin"
Json = dict[str, Any]
Seen = Callable[[str, float, Json], None]
"""Takes the kind of event, when it came, and the pod."""


class PlainClient:
    """Knows one namespace."""

    def __init__(self, place: ClusterPlace) -> None:
        self._place = place
        self._api: client.ApiClient
        self.namespace = ""
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "PlainClient":
        settings = client.Configuration()
        loader = await config.load_kube_config(str(self._place.bench), client_configuration=settings)
        context: Json = loader.current_context or {"context": {}}
        self.namespace = context["context"].get("namespace", "default")
        self._api = client.ApiClient(settings)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._api.close()

    def follow(self, labels: str, seen: Seen) -> None:
        """Tell of the pods with these labels as the API does, from now on."""
        self._tasks.append(asyncio.ensure_future(self._follow(labels, seen)))

    async def alike(self, name: str) -> Mapping[str, Json]:
        """What a workspace consists of, without what makes it that one."""
        found = {}
        for kind in _KINDS:
            thing = self._api.sanitize_for_serialization(await self._call("read", kind, name))
            metadata = {key: thing["metadata"][key] for key in ("labels", "annotations") if key in thing["metadata"]}
            kept = {key: text for key, text in metadata["labels"].items() if key != _OURS}
            metadata["labels"] = kept | {"mlhub.bench": "plain"}
            thing["metadata"] = metadata | {"name": name}
            thing.pop("status", None)
            found[kind] = thing
        found["pod"]["spec"].pop("nodeName", None)
        found["persistent_volume_claim"]["spec"].pop("volumeName", None)
        return found

    async def make(self, name: str, like: Mapping[str, Json]) -> None:
        """All that a workspace consists of."""
        for kind, thing in like.items():
            # Its name stands in claims and selectors, too.
            own = json.loads(json.dumps(thing).replace(thing["metadata"]["name"], name))
            await self._call("create", kind, own)

    async def remove(self, names: Sequence[str]) -> None:
        """All of these."""
        for name in names:
            for kind in reversed(_KINDS):
                await self._call("delete", kind, name)

    async def kill(self, name: str) -> None:
        """Take a pod away without a word."""
        await self._call("delete", "pod", name, grace_period_seconds=0)

    async def _call(self, verb: str, kind: str, *words: Any, **fields: Any) -> Any:
        api: Any = (client.NetworkingV1Api if kind == "network_policy" else client.CoreV1Api)(self._api)
        call = getattr(api, f"{verb}_namespaced_{kind}")
        return await (call(self.namespace, *words) if verb == "create" else call(words[0], self.namespace, **fields))

    async def _follow(self, labels: str, seen: Seen) -> None:
        core = client.CoreV1Api(self._api)
        newest = (await core.list_namespaced_pod(self.namespace, label_selector=labels)).metadata.resource_version
        async with watch.Watch().stream(
            core.list_namespaced_pod, self.namespace, label_selector=labels, resource_version=newest
        ) as events:
            async for event in events:
                seen(event["type"], time.monotonic(), event["raw_object"])
