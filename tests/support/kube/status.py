"""The status of a pod as its kubelet tells it."""

from dataclasses import dataclass, field

from tests.support.kube.resources import Obj
from tests.support.kube.store import now

_TRUE, _FALSE = "True", "False"


@dataclass
class ContainerStatus:
    """Of one container."""

    name: str
    image: str
    state: Obj = field(default_factory=dict)
    last: Obj = field(default_factory=dict)
    restarts: int = 0
    identity: str = ""
    is_ready: bool = False

    def wait(self, reason: str, message: str = "") -> None:
        """It does not run yet, or not now."""
        told = {"reason": reason} | ({"message": message} if message else {})
        self.state, self.is_ready = {"waiting": told}, False

    def run(self, identity: str) -> None:
        """It runs."""
        self.state, self.identity = {"running": {"startedAt": now()}}, f"containerd://{identity}"

    def end(self, code: int, reason: str = "", message: str = "", *, number: int = 0) -> None:
        """It has ended."""
        started = self.state.get("running", {}).get("startedAt", now())
        told: Obj = {"exitCode": code, "reason": reason or ("Error" if code else "Completed")}
        if number:
            told["signal"] = number
        if message:
            told["message"] = message
        told |= {"startedAt": started, "finishedAt": now(), "containerID": self.identity}
        self.state, self.is_ready = {"terminated": told}, False

    def to_json(self) -> Obj:
        """As it stands in the pod."""
        return {
            "name": self.name,
            "state": self.state,
            "lastState": self.last,
            "ready": self.is_ready,
            "restartCount": self.restarts,
            "image": self.image,
            "imageID": f"sha256:{abs(hash(self.image)):064x}" if self.identity else "",
            "started": "running" in self.state,
            **({"containerID": self.identity} if self.identity else {}),
        }


class PodStatus:
    """Of one pod."""

    def __init__(self, pod: Obj) -> None:
        spec = pod["spec"]
        self.phase = "Pending"
        self.reason = self.message = self.address = self.started = ""
        self.quality = pod["status"].get("qosClass", "")
        self.inits = [ContainerStatus(one["name"], one["image"]) for one in spec.get("initContainers", ())]
        self.containers = [ContainerStatus(one["name"], one["image"]) for one in spec["containers"]]
        self._conditions: dict[str, Obj] = {}
        self.is_assigned = False

    def condition(self, kind: str, holds: bool, reason: str = "", message: str = "") -> None:
        """Set one; its time changes with its value only."""
        value = _TRUE if holds else _FALSE
        known = self._conditions.get(kind)
        at = known["lastTransitionTime"] if known and known["status"] == value else now()
        told: Obj = {"type": kind, "status": value, "lastProbeTime": None, "lastTransitionTime": at}
        told |= {key: text for key, text in (("reason", reason), ("message", message)) if text}
        self._conditions[kind] = told

    def accept(self) -> None:
        """The kubelet has taken it up."""
        self.is_assigned, self.started = True, now()
        self.condition("PodScheduled", True)
        self.condition("Initialized", not self.inits, "" if not self.inits else "ContainersNotInitialized")
        for status in self.inits:
            status.wait("PodInitializing")
        for status in self.containers:
            status.wait("PodInitializing" if self.inits else "ContainerCreating")
        self.ready(False, "ContainersNotReady")

    def ready(self, holds: bool, reason: str = "") -> None:
        """Whether all its containers are."""
        self.condition("Ready", holds, reason)
        self.condition("ContainersReady", holds, reason)
        for status in self.containers:
            status.is_ready = holds and "running" in status.state

    def to_json(self) -> Obj:
        """As it stands in the pod."""
        told: Obj = {"phase": self.phase, "conditions": list(self._conditions.values()), "qosClass": self.quality}
        told |= {key: text for key, text in (("reason", self.reason), ("message", self.message)) if text}
        if self.is_assigned:
            told |= {"hostIP": "127.0.0.1", "startTime": self.started}
            told["containerStatuses"] = [status.to_json() for status in self.containers]
        if self.is_assigned and self.inits:
            told["initContainerStatuses"] = [status.to_json() for status in self.inits]
        if self.address:
            told |= {"podIP": self.address, "podIPs": [{"ip": self.address}]}
        return told
