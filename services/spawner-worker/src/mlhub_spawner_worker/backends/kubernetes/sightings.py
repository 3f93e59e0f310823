"""What a pod's status means, for the worker and for people. Pure.

The phase alone lies: a command that can't be found is Running, a failed pull is Pending, and what is being deleted may
be in any. So the containers' states are read first.
"""

import re
from dataclasses import dataclass
from typing import Any

from mlhub_shared.contracts.cluster import CONTAINER
from mlhub_shared.contracts.workspace import Reason
from mlhub_spawner_worker.backends.kubernetes import marks
from mlhub_spawner_worker.backends.restoring import GENERATION, HOME, PORT, SPEC, number

Json = dict[str, Any]

FOR_NODE, FOR_VOLUME, FOR_ROOM, PLACED, PULLING, PULLED, INITIALIZING, CREATED = 0, 3, 5, 20, 30, 80, 85, 90
"""Percent of the way to a running container."""

_LONGEST = 600
"""Characters of the cluster's words that people are shown."""

_SIGNALS = range(129, 193)
"""Exit codes that stand for a signal."""

_HOPELESS = re.compile(
    r"not found|manifest unknown|unauthorized|authorization failed|denied|forbidden|no match for platform",
    re.IGNORECASE,
)
"""What a registry says of an image that it won't give, however often it is asked."""

_WRONG_IMAGE = {"InvalidImageName": "its name is not valid", "ErrImageNeverPull": "no node may fetch it"}
_PULL_FAILED = {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError"}

_BACKING_OFF = re.compile(r'^Back-off pulling image "[^"]*"(: ErrImagePull)?(: )?')
"""What a kubelet says between two tries, before the cause; older ones leave that out."""
_OWN_PORT = re.compile(r"(?<=\d):\d+(?=->)")
"""Of the node, and another one at each try."""

_AS_ROOT = re.compile(r"runAsNonRoot|non-root")

_NO_VOLUME = re.compile(r"persistentvolumeclaim|persistent volumes to bind|VolumeBinding", re.IGNORECASE)
"""What a scheduler says where room is not all that is missing."""

_NODE_GAVE_IT_UP = {
    "Evicted": "Its node was short of something and ended it",
    "NodeShutdown": "Its node was shut down",
    "Shutdown": "Its node was shut down",
    "Terminated": "Its node was shut down",
    "NodeLost": "Its node was lost",
    "Preempting": "It had to make room for something more important",
    "Preempted": "It had to make room for something more important",
}
"""By the reason in a pod's status."""

_NODE_WENT_DOWN = {"NodeShutdown", "Shutdown", "Terminated", "NodeLost"}
"""Reasons, of those, that are about the node and not about the pod."""

_NOBODY_SAW = {"Unknown", "ContainerStatusUnknown"}
"""A container's reasons after its node has been started anew: what it ran is not there any more."""

_SILENT = {"", "NodeNotReady", "NodeStatusUnknown"}
"""Reasons of the condition Ready that are not the kubelet's own."""

_TAKEN_AWAY = {
    "PreemptionByScheduler": "It had to make room for something more important",
    "DeletionByTaintManager": "Its node did not answer any more, or was closed, and the cluster gave it up",
    "EvictionByEvictionAPI": "It was evicted: its node is being emptied",
    "DeletionByPodGC": "Its node is not there any more",
    "TerminationByKubelet": "Its node was shut down or short of something, and ended it",
}
"""By the reason of the condition DisruptionTarget."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """It does not run yet."""

    message: str
    percent: int
    reason: Reason = Reason.TIMEOUT
    """What it fails for if that goes on for too long."""
    is_hopeless: bool = False
    """It is tried again, and there is not much hope."""


@dataclass(frozen=True, slots=True)
class Up:
    """It runs."""


@dataclass(frozen=True, slots=True)
class Ended:
    """It ran, and runs no more."""

    code: int | None
    """Negative: the signal that killed it. None: nobody saw."""
    reason: Reason = Reason.EXITED
    message: str = ""
    last_words: str = ""
    """What the program has left for whoever asks."""
    with_node: bool = False
    """It was its node that ended."""


@dataclass(frozen=True, slots=True)
class Impossible:
    """It will never run."""

    message: str
    reason: Reason = Reason.BACKEND


Sighting = Waiting | Up | Ended | Impossible


@dataclass(frozen=True, slots=True)
class Pod:
    """What the worker knows of a workspace's pod."""

    name: str
    uid: str
    version: int
    """Grows with each change."""
    generation: int
    port: int
    home: str
    has_volume: bool
    image: str
    image_id: str
    address: str
    """Empty: none yet."""
    node: str
    """Empty: none yet."""
    sighting: Sighting
    container: str
    """The one whose log tells most."""
    is_leaving: bool
    """Somebody has deleted it."""
    holders: tuple[str, ...]
    """Finalizers: who must let go of it before it is gone."""
    fate: str
    """Why the cluster takes its place away, in a sentence; empty: it does not."""
    trouble: str
    """What ails it while it runs, in a sentence; empty: nothing."""

    @property
    def is_alive(self) -> bool:
        """It runs, or may still run."""
        return isinstance(self.sighting, Waiting | Up)


def seen(thing: Json) -> Pod | None:
    """A pod as the API tells it; None if it is no workspace's."""
    told = marks.carried(thing)
    if not told:
        return None
    metadata, spec, status = thing["metadata"], thing.get("spec") or {}, thing.get("status") or {}
    own = _own(status)
    sighting, container = _sighting(thing)
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        version=version_of(metadata),
        generation=number(told, GENERATION),
        port=number(told, PORT),
        home=told.get(HOME, ""),
        has_volume='"is_mount_volume":false' not in told.get(SPEC, ""),
        image=next((one.get("image", "") for one in spec.get("containers") or () if one["name"] == CONTAINER), ""),
        image_id=own.get("imageID", ""),
        address=status.get("podIP", ""),
        node=spec.get("nodeName", ""),
        sighting=sighting,
        container=container,
        is_leaving="deletionTimestamp" in metadata,
        holders=tuple(metadata.get("finalizers") or ()),
        fate=_fate(status),
        trouble=_trouble(thing) if isinstance(sighting, Up) else "",
    )


def version_of(metadata: Json) -> int:
    """Of a thing, or of a list; 0 where it can't be compared."""
    text = str(metadata.get("resourceVersion", ""))
    return int(text) if text.isascii() and text.isdigit() else 0


def _sighting(thing: Json) -> tuple[Sighting, str]:
    """What it comes to, and the container that it is about."""
    spec, status = thing.get("spec") or {}, thing.get("status") or {}
    own, inits, sidecars = _own(status), status.get("initContainerStatuses") or (), _sidecars(spec)
    if (terminated := (own.get("state") or {}).get("terminated")) is not None:
        return _terminated(terminated, status), CONTAINER
    for init in inits:
        failed = (init.get("state") or {}).get("terminated") or {}
        if failed.get("exitCode") and init["name"] not in sidecars:
            return _init_failed(init["name"], failed), init["name"]
    if status.get("phase") in ("Failed", "Succeeded"):
        return _given_up(status), CONTAINER
    if "running" in (own.get("state") or {}):
        return Up(), CONTAINER
    for one in (own, *inits):
        if (held := _held(one, is_sidecar=one.get("name") in sidecars)) is not None:
            return held, one.get("name", CONTAINER)
    return _on_its_way(thing), CONTAINER


def _terminated(told: Json, status: Json) -> Sighting:
    reason, code = told.get("reason", ""), told.get("exitCode")
    words = str(told.get("message") or "").strip()
    if reason in ("StartError", "ContainerCannotRun"):
        return Impossible(f"Its program can't be started: {words[:_LONGEST] or reason}")
    if fate := _fate(status):
        return Ended(_signed(code), Reason.EVICTED, fate, words, with_node=_went_down(status))
    if reason == "OOMKilled":
        return Ended(_signed(code), Reason.OUT_OF_MEMORY, last_words=words)
    if reason in _NOBODY_SAW:
        return Ended(None, Reason.EVICTED, "Its node was started anew, and ended it", with_node=True)
    return Ended(_signed(code), last_words=words)


def _given_up(status: Json) -> Sighting:
    """A pod that is over without a container of ours that has ended."""
    if fate := _fate(status):
        return Ended(None, Reason.EVICTED, fate, with_node=_went_down(status))
    reason, message = status.get("reason", ""), str(status.get("message") or "").strip()[:_LONGEST]
    if reason == "DeadlineExceeded":
        return Ended(None, message="The cluster let it run for no longer")
    # The scheduler had chosen a node that has no room after all.
    return Impossible(f"The node would not take it: {message or reason or 'it does not say why'}", Reason.NO_ROOM)


def _init_failed(name: str, told: Json) -> Impossible:
    words = str(told.get("message") or "").strip()[:_LONGEST]
    ended = "ran out of memory" if told.get("reason") == "OOMKilled" else f"ended with exit code {told['exitCode']}"
    return Impossible(f"Its init container {name} {ended}{f': {words}' if words else ''}")


def _held(one: Json, *, is_sidecar: bool) -> Sighting | None:
    """What holds a container back; None: nothing out of the ordinary."""
    waiting, image = (one.get("state") or {}).get("waiting") or {}, one.get("image", "")
    reason, words = waiting.get("reason", ""), str(waiting.get("message") or "").strip()
    message = words[:_LONGEST]
    if reason in _WRONG_IMAGE:
        return Impossible(f"The image {image} can't be had: {_WRONG_IMAGE[reason]}", Reason.IMAGE)
    if reason in _PULL_FAILED:
        # The same words for as long as the cause is the same, whether it is just tried or not.
        cause = _OWN_PORT.sub("", _BACKING_OFF.sub("", words))[:_LONGEST]
        text = f"The image {image} can't be had{f': {cause}' if cause else ''}"
        return Waiting(text, PULLING, Reason.IMAGE, is_hopeless=bool(_HOPELESS.search(cause)))
    if reason == "CreateContainerConfigError":
        return Impossible(_unconfigured(image, message))
    if reason in ("RunContainerError", "CrashLoopBackOff"):
        if is_sidecar:
            return Waiting(f"Its init container {one['name']} does not stay up: {message or reason}", INITIALIZING)
        return Impossible(f"Its program can't be started: {message or reason}")
    if reason in ("", "ContainerCreating", "PodInitializing"):
        return None
    return Waiting(f"Its container can't be made yet: {reason}{f': {message}' if message else ''}", PULLED)


def _unconfigured(image: str, message: str) -> str:
    if _AS_ROOT.search(message):
        return (
            f"The image {image} runs as root, or as a user that has no number, which its profile forbids: an "
            "administrator can give the profile a user, or set its kubernetes.run_as_non_root to false"
        )
    return f"Something that its profile names is missing: {message or 'the cluster does not say what'}"


def _on_its_way(thing: Json) -> Waiting:
    spec, status = thing.get("spec") or {}, thing.get("status") or {}
    placed = _condition(status, "PodScheduled")
    if placed.get("status") == "False":
        # Behind it the scheduler tells why it ends nobody else's pod, node by node: nothing that anybody could act on.
        message, _, _ = str(placed.get("message") or placed.get("reason") or "").partition(" preemption:")
        message = message.strip()[:_LONGEST]
        if _NO_VOLUME.search(message):
            return Waiting(f"Waiting for its volume: {message}", FOR_VOLUME)
        return Waiting(f"Waiting for room in the cluster: {message}", FOR_ROOM, Reason.NO_ROOM)
    if not spec.get("nodeName"):
        return Waiting("Waiting for a node", FOR_NODE, Reason.NO_ROOM)
    for init in status.get("initContainerStatuses") or ():
        if "running" in (init.get("state") or {}) and init["name"] not in _sidecars(spec):
            return Waiting(f"Its init container {init['name']} runs", INITIALIZING)
    return Waiting(f"Node {spec['nodeName']} makes it ready", PLACED)


def _fate(status: Json) -> str:
    if (sentence := _NODE_GAVE_IT_UP.get(status.get("reason", ""))) is not None:
        return _with_words(sentence, status.get("message"))
    target = _condition(status, "DisruptionTarget")
    if target.get("status") != "True":
        return ""
    sentence = _TAKEN_AWAY.get(target.get("reason", ""), "The cluster took its place away")
    return _with_words(sentence, target.get("message"))


def _went_down(status: Json) -> bool:
    return status.get("reason") in _NODE_WENT_DOWN


def _trouble(thing: Json) -> str:
    ready = _condition(thing.get("status") or {}, "Ready")
    # A kubelet that makes it unready says why; whoever does so for a node that is silent says nothing of the pod.
    is_silent = ready.get("status") == "False" and ready.get("reason", "") in _SILENT
    if not is_silent and ready.get("status") != "Unknown":
        return ""
    node = (thing.get("spec") or {}).get("nodeName", "")
    return f"Node {node} does not answer; it goes on when the node is back, unless the cluster gives the node up before"


def _with_words(sentence: str, words: object) -> str:
    text = str(words or "").strip()[:_LONGEST]
    return f"{sentence}: {text}" if text else sentence


def _sidecars(spec: Json) -> set[str]:
    """Init containers that stay beside the workspace: each is started again whenever it ends."""
    return {one["name"] for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always"}


def _own(status: Json) -> Json:
    return next((one for one in status.get("containerStatuses") or () if one.get("name") == CONTAINER), {})


def _condition(status: Json, kind: str) -> Json:
    return next((one for one in status.get("conditions") or () if one.get("type") == kind), {})


def _signed(code: int | None) -> int | None:
    return 128 - code if code is not None and code in _SIGNALS else code
