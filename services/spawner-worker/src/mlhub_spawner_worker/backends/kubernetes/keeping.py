"""What the cluster keeps of workspaces for the day that everybody else has lost it."""

import asyncio
import hashlib
from typing import Any

import structlog
from pydantic import ValidationError

from mlhub_shared.contracts.queries import Resource
from mlhub_shared.contracts.workspace import Endpoint, WorkspaceRecord
from mlhub_spawner_worker.backends import restoring
from mlhub_spawner_worker.backends.base import BackendError, Found, Running
from mlhub_spawner_worker.backends.kubernetes import marks
from mlhub_spawner_worker.backends.kubernetes.client import CLAIMS, PODS, Json, Kind, KubeClient
from mlhub_spawner_worker.backends.kubernetes.pods import Pods
from mlhub_spawner_worker.backends.kubernetes.refusals import Forbidden, Missing
from mlhub_spawner_worker.backends.kubernetes.sightings import Pod, seen

log = structlog.get_logger(__name__)

BOOT = "kubernetes"
"""A cluster is never started anew as a whole; what died with its node is told of one by one."""

_NOWHERE = "192.0.2.1"
"""Address of a pod that has none yet; nobody has this one."""


def running(pod: Pod) -> Running:
    """A pod that runs, or may come to run."""
    endpoint = Endpoint(host=pod.address or _NOWHERE, port=pod.port)
    return Running(pod.generation, endpoint, BOOT, pod.image_id)


class Keeping:
    """Records as annotations: on the volume, which outlives the pod, or on the pod where there is none."""

    def __init__(self, client: KubeClient, pods: Pods, hub: str) -> None:
        self._client, self._pods, self._hub = client, pods, hub
        self._kept: dict[str, bytes] = {}
        """Digests of what is kept: nothing is written twice."""

    def forget(self, name: str) -> None:
        """Nothing is kept of it any more."""
        self._kept.pop(name, None)

    async def remember(self, record: WorkspaceRecord) -> None:
        """Keep it, once it is settled: before that the pod's own annotations tell as much."""
        text = record.model_dump_json(exclude_defaults=True)
        if not record.phase.is_settled or self._kept.get(record.name) == _digest(text):
            return
        for kind in self._places(record):
            try:
                await self._client.annotate(kind, record.name, {marks.RECORD: text})
            except Missing:
                continue
            except (BackendError, Forbidden) as error:
                # What it asks for must not wait for this.
                log.warning("kubernetes.not_remembered", workspace=record.name, why=str(error))
            else:
                self._kept[record.name] = _digest(text)
            return

    def _places(self, record: WorkspaceRecord) -> list[Kind]:
        on_pod = [PODS] if self._pods.get(record.name) is not None else []
        return [CLAIMS, *on_pod] if record.spec.is_mount_volume else on_pod

    async def inventory(self) -> list[Found]:
        """Everything that runs or is kept."""
        pods, claims = await self._all()
        found = []
        for name in sorted(pods.keys() | claims.keys()):
            pod = seen(pods[name]) if name in pods else None
            record = self._record(pod, pods.get(name), claims.get(name))
            if record is not None:
                found.append(Found(record, running(pod) if pod is not None and pod.is_alive else None))
        return found

    async def resources(self) -> list[Resource]:
        """Pods and volumes; what else there is goes with them."""
        pods, claims = await self._all()
        return [
            Resource(kind=kind, name=name, workspace=restoring.workspace_of(marks.carried(thing), self._hub))
            for kind, things in (("pod", pods), ("volume", claims))
            for name, thing in sorted(things.items())
        ]

    async def _all(self) -> tuple[dict[str, Json], dict[str, Json]]:
        wanted = marks.selector(self._hub)
        pods, claims = await asyncio.gather(
            self._client.all(PODS, labels=wanted), self._client.all(CLAIMS, labels=wanted)
        )
        return _by_name(pods[0]), _by_name(claims[0])

    def _record(self, pod: Pod | None, of_pod: Json | None, of_claim: Json | None) -> WorkspaceRecord | None:
        """As it was last remembered, unless the pod is newer than that."""
        texts = [thing["metadata"]["annotations"].get(marks.RECORD) for thing in (of_claim, of_pod) if thing]
        for text in texts:
            kept = _parsed(text) if text else None
            if text and kept is not None and (pod is None or kept.generation >= pod.generation):
                self._kept[kept.name] = _digest(text)
                return kept
        thing = of_pod or of_claim
        if thing is None:
            return None
        made = restoring.moment(thing["metadata"].get("creationTimestamp", ""))
        is_alive = pod is not None and pod.is_alive
        return restoring.record_of(marks.carried(thing), self._hub, made=made, runs=is_alive)


def _by_name(things: list[dict[str, Any]]) -> dict[str, Json]:
    return {thing["metadata"]["name"]: thing for thing in things if marks.carried(thing)}


def _parsed(text: str) -> WorkspaceRecord | None:
    try:
        return WorkspaceRecord.model_validate_json(text)
    except ValidationError:
        return None


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
