"""How what there is of a workspace goes: its pod, politely, then its volume and its isolation."""

import asyncio
import math
import time
from collections.abc import Callable
from datetime import timedelta

import structlog

from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.errors import MLHubError, Temporary
from mlhub_spawner_worker.backends.base import BackendError
from mlhub_spawner_worker.backends.kubernetes import marks
from mlhub_spawner_worker.backends.kubernetes.client import CLAIMS, PODS, POLICIES, Json, KubeClient
from mlhub_spawner_worker.backends.kubernetes.pods import Pods
from mlhub_spawner_worker.backends.kubernetes.refusals import Forbidden, Missing, Moved
from mlhub_spawner_worker.backends.kubernetes.sightings import Ended, Pod, Waiting

log = structlog.get_logger(__name__)

_LEAST_GRACE = 1
"""Seconds. None would remove the pod and leave its programs running, on the volume that the next one mounts."""

_LOOK_AGAIN = 3.0
"""Seconds without a word of something that is about to go, after which the worker asks."""

_TAIL_LINES, _TAIL_BYTES = 100, 4000
_TAIL_WITHIN = 3.0
"""Seconds for a log, which its node has: nothing waits for a node that does not answer."""

_IN_USE = "kubernetes.io/pvc-protection"


class Stranger(BackendError):
    """Something that this hub has not made has the name."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(
            f"There is a {what} {name} in the namespace that this hub has not made; an administrator must remove or "
            "rename it."
        )


class Ending:
    """Ends pods and removes volumes. Each step may be repeated."""

    def __init__(self, client: KubeClient, pods: Pods, *, gone_within: timedelta) -> None:
        self._client, self._pods, self._within = client, pods, gone_within.total_seconds()

    async def find(self, name: str) -> Pod | None:
        """Its pod as the API has it now; Stranger if it is not ours."""
        known = self._pods.get(name)
        try:
            thing = await self._client.read(PODS, name)
        except Missing:
            if known is not None:
                self._pods.gone(known)
            return None
        pod = self._pods.put(thing)
        if pod is None:
            raise Stranger("pod", name)
        return pod

    async def find_volume(self, name: str) -> Json | None:
        """Its volume; Stranger if it is not ours."""
        try:
            claim = await self._client.read(CLAIMS, name)
        except Missing:
            return None
        if not marks.carried(claim):
            raise Stranger("volume", name)
        return claim

    async def tail(self, pod: Pod) -> str:
        """The last lines of the log that tells most; empty where there is none to be had."""
        if isinstance(pod.sighting, Waiting) or pod.trouble:
            return ""
        words = pod.sighting.last_words if isinstance(pod.sighting, Ended) else ""
        try:
            text = await self._client.log(pod.name, pod.container, lines=_TAIL_LINES, within=_TAIL_WITHIN)
        except Forbidden as error:
            log.warning("kubernetes.no_logs", workspace=pod.name, why=str(error))
            return words
        except MLHubError:
            return words
        return text[-_TAIL_BYTES:].partition("\n")[2] if len(text) > _TAIL_BYTES else text or words

    async def begin(self, name: str, goes: Callable[[Pod], bool], *, grace: timedelta) -> tuple[Pod | None, str]:
        """Tell its pod to end, if there is one that `goes`. Returns it, and the tail of its log."""
        pod = await self.find(name)
        if pod is None or not goes(pod):
            return None, ""
        tail = await self.tail(pod)
        self._pods.deletes(pod.uid)
        if not pod.is_leaving:
            seconds = max(_LEAST_GRACE, math.ceil(grace.total_seconds()))
            try:
                await self._client.delete(PODS, name, uid=pod.uid, grace=seconds)
            except Missing:
                self._pods.gone(pod)
            except (BackendError, Forbidden, Moved):
                self._pods.could_not_delete(pod.uid)
                raise
        return pod, tail

    async def gone(self, pod: Pod, *, grace: timedelta) -> None:
        """Wait until it is not there any more; Temporary if that takes too long."""
        deadline = time.monotonic() + grace.total_seconds() + self._within
        with self._pods.following(pod.name) as changed:
            while True:
                changed.clear()
                current = self._pods.get(pod.name)
                if current is None or current.uid != pod.uid:
                    return
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Temporary(_why_there(current))
                try:
                    async with asyncio.timeout(min(left, _LOOK_AGAIN)):
                        await changed.wait()
                except TimeoutError:
                    # Whoever would tell may be away.
                    await self.find(pod.name)

    async def erase(self, name: str, *, up_to: int) -> None:
        """Remove its volume, and wait until it is gone: a pod on one that is going would never run."""
        claim = await self.find_volume(name)
        if claim is None:
            await self._isolate_no_more(name, up_to)
        elif marks.generation_of(claim) <= up_to:
            await self._remove(claim)

    async def _isolate_no_more(self, name: str, up_to: int) -> None:
        """Remove the isolation of a start that came no further: any other one goes with its volume or pod."""
        try:
            policy = await self._client.read(POLICIES, name)
            is_left = marks.carried(policy) and not policy["metadata"].get("ownerReferences")
            if is_left and marks.generation_of(policy) <= up_to:
                await self._client.delete(POLICIES, name, version=policy["metadata"]["resourceVersion"])
        except Missing:
            return

    async def _remove(self, claim: Json) -> None:
        name, uid = claim["metadata"]["name"], claim["metadata"]["uid"]
        deadline, backoff = time.monotonic() + self._within, Backoff(first=0.05, most=1)
        if "deletionTimestamp" not in claim["metadata"]:
            try:
                await self._client.delete(CLAIMS, name, uid=uid)
            except Missing:
                return
        while (left := await self.find_volume(name)) is not None and left["metadata"]["uid"] == uid:
            if time.monotonic() > deadline:
                raise Temporary(why_kept(left))
            await backoff.sleep()


def why_kept(claim: Json) -> str:
    """Why a volume that is being deleted is still there."""
    holders = claim["metadata"].get("finalizers") or ()
    if _IN_USE in holders:
        return "Its old volume is not gone yet: a pod still uses it"
    return f"Its old volume is not gone yet{_held_by(holders)}"


def _why_there(pod: Pod) -> str:
    if pod.trouble:
        return f"Node {pod.node} does not answer, so nobody knows whether it has ended there"
    return f"Its last pod is not gone yet{_held_by(pod.holders)}"


def _held_by(holders: tuple[str, ...] | list[str]) -> str:
    return f": {', '.join(holders)} holds it" if holders else ""
