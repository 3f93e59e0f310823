"""What the cluster's events say of a pod that does not run yet. Pure."""

from collections import OrderedDict
from dataclasses import replace
from typing import Any

from mlhub_spawner_worker.backends.kubernetes.sightings import (
    CREATED,
    FOR_ROOM,
    PLACED,
    PULLED,
    PULLING,
    Pod,
    Waiting,
)

Json = dict[str, Any]

_MOST = 2000
"""Pods of which something is kept; a start is over in minutes."""

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
_WITH_DETAIL = {"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "NetworkNotReady"}


class Notes:
    """The last word on each pod, by uid."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, tuple[str, str]] = OrderedDict()

    def heard(self, event: Json) -> str | None:
        """Take an event; the name of the pod if it is worth a look now."""
        about, reason = event.get("involvedObject") or {}, event.get("reason", "")
        uid = about.get("uid")
        if reason not in _PERCENT or not uid:
            return None
        self._last[uid] = (reason, str(event.get("message") or "").strip()[:_LONGEST])
        self._last.move_to_end(uid)
        if len(self._last) > _MOST:
            self._last.popitem(last=False)
        name = about.get("name")
        return name if isinstance(name, str) else None

    def forget(self, uid: str) -> None:
        """It is up, or gone."""
        self._last.pop(uid, None)

    def told(self, pod: Pod, waiting: Waiting) -> Waiting:
        """What it waits for, with what was heard of it."""
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
