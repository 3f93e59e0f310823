"""What the cluster keeps of workspaces for the day that everybody else has lost it."""

import hashlib
from collections.abc import AsyncIterator

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
        # Volumes first: most have no pod, so all that is held of them is the answer itself.
        kept, found = dict[str, WorkspaceRecord](), dict[str, Found]()
        async for claim in self._things(CLAIMS):
            name = claim["metadata"]["name"]
            if (record := self._remembered(claim)) is not None:
                kept[name] = record
            if (record := record or self._rebuilt(claim, runs=False)) is not None:
                found[name] = Found(record, None)
        async for thing in self._things(PODS):
            if (pod := seen(thing)) is None:
                continue
            record = _of(pod, kept.get(pod.name)) or _of(pod, self._remembered(thing))
            if (record := record or self._rebuilt(thing, runs=pod.is_alive)) is not None:
                found[pod.name] = Found(record, running(pod) if pod.is_alive else None)
        return [found[name] for name in sorted(found)]

    async def resources(self) -> list[Resource]:
        """Pods and volumes; what else there is goes with them."""
        return [
            Resource(
                kind=kind,
                name=thing["metadata"]["name"],
                workspace=restoring.workspace_of(marks.carried(thing), self._hub),
            )
            for kind, things in (("pod", PODS), ("volume", CLAIMS))
            async for thing in self._things(things)
        ]

    async def _things(self, kind: Kind) -> AsyncIterator[Json]:
        """All that are somebody's, by name, and never more than a page of them at once."""
        async for page in self._client.pages(kind, labels=marks.selector(self._hub)):
            for thing in page.items:
                if marks.carried(thing):
                    yield thing

    def _remembered(self, thing: Json) -> WorkspaceRecord | None:
        """The record that was put on it."""
        text = thing["metadata"]["annotations"].get(marks.RECORD)
        try:
            record = WorkspaceRecord.model_validate_json(text) if text else None
        except ValidationError:
            return None
        if record is not None:
            self._kept[record.name] = _digest(text)
        return record

    def _rebuilt(self, thing: Json, *, runs: bool) -> WorkspaceRecord | None:
        """As much of a record as it tells of by itself."""
        made = restoring.moment(thing["metadata"].get("creationTimestamp", ""))
        return restoring.record_of(marks.carried(thing), self._hub, made=made, runs=runs)


def _of(pod: Pod, record: WorkspaceRecord | None) -> WorkspaceRecord | None:
    """It, unless the pod is newer."""
    return record if record is not None and record.generation >= pod.generation else None


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
