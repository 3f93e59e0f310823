"""What the cluster's events say of a pod that does not run yet, and of the volume that it waits for. Pure."""

from collections import OrderedDict
from dataclasses import replace
from typing import Any, TypeVar

from mlhub_spawner_worker.backends.kubernetes.sightings import (
    CREATED,
    FOR_NODE,
    FOR_ROOM,
    FOR_VOLUME,
    PLACED,
    PULLED,
    PULLING,
    Pod,
    Waiting,
)

Json = dict[str, Any]

T = TypeVar("T")

_MOST = 2000
"""Pods and volumes of which something is kept; a start is over in minutes."""

_LONGEST = 600

_PERCENT = {
    "TriggeredScaleUp": FOR_ROOM,
    "NotTriggerScaleUp": FOR_ROOM,
    "FailedMount": PLACED,
    "FailedAttachVolume": PLACED,
    "FailedCreatePodSandBox": PLACED,
    "NetworkNotReady": PLACED,
    "Pulling": PULLING,
    "Pulled": PULLED,
    "Created": CREATED,
    "Started": CREATED,
}
"""The reasons that tell people something, and how far a pod is then."""

_IN_WORDS = {
    "TriggeredScaleUp": "The cluster gets another node for it",
    "FailedMount": "A volume can't be mounted yet",
    "FailedAttachVolume": "A volume can't be attached to the node yet",
    "FailedCreatePodSandBox": "The node can't make its network yet",
    "NetworkNotReady": "The node's network is not ready yet",
    "Pulled": "Its image is there",
    "Created": "Its container is made",
    "Started": "A container of it has started",
}
_VOLUME_FAILED = {"ProvisioningFailed", "FailedBinding"}
_VOLUME_MADE = "ProvisioningSucceeded"
_WITH_DETAIL = {"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "NetworkNotReady"}


class Notes:
    """The last word on each pod, and on each volume that can't be made."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, tuple[str, str]] = OrderedDict()
        """Reason and message, by the pod's uid."""
        self._claims: OrderedDict[str, str] = OrderedDict()
        """By the name of the workspace."""

    def heard(self, event: Json) -> str | None:
        """Take an event; the name of the pod if it is worth a look now."""
        about, reason = event.get("involvedObject") or {}, event.get("reason", "")
        uid, name = about.get("uid"), about.get("name")
        message = str(event.get("message") or "").strip()[:_LONGEST]
        if not uid or not isinstance(name, str):
            return None
        match about.get("kind"):
            case "Pod" if reason in _PERCENT:
                _keep(self._last, uid, (reason, message))
            case "PersistentVolumeClaim" if reason in _VOLUME_FAILED:
                _keep(self._claims, name, message)
            case "PersistentVolumeClaim" if reason == _VOLUME_MADE:
                self._claims.pop(name, None)
            case _:
                return None
        return name

    def forget(self, uid: str) -> None:
        """It is up, or gone."""
        self._last.pop(uid, None)

    def told(self, pod: Pod, waiting: Waiting) -> Waiting:
        """What it waits for, with what was heard of it."""
        if pod.node:
            self._claims.pop(pod.name, None)
        elif waiting.percent in (FOR_NODE, FOR_VOLUME) and (why := self._claims.get(pod.name)):
            return Waiting(f"Its volume can't be made yet: {why}", FOR_VOLUME)
        reason, message = self._last.get(pod.uid, ("", ""))
        percent = _PERCENT.get(reason)
        if percent is None or waiting.percent not in (FOR_ROOM, PLACED):
            return waiting
        if waiting.percent == FOR_ROOM:
            more = reason == "TriggeredScaleUp"
            return replace(waiting, message=f"{waiting.message} {_IN_WORDS[reason]}.") if more else waiting
        if percent < PLACED:
            return waiting
        if reason == "Pulling":
            # The event comes before the node's turn to pull: it fetches one image at a time.
            return replace(waiting, message=f"Node {pod.node} fetches {pod.image}, or waits to", percent=percent)
        detail = f": {message}" if reason in _WITH_DETAIL and message else ""
        return replace(waiting, message=f"{_IN_WORDS[reason]}{detail}", percent=percent)


def _keep(notes: OrderedDict[str, T], key: str, note: T) -> None:
    notes[key] = note
    notes.move_to_end(key)
    if len(notes) > _MOST:
        notes.popitem(last=False)
