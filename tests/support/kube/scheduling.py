"""Whether a pod has room on the one node, and what is missing otherwise."""

import re
from collections import Counter
from collections.abc import Mapping

from tests.support.kube.deletion import claims
from tests.support.kube.resources import Obj
from tests.support.kube.store import Store, Stored

_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18} | {
    f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", 1)
}
_QUANTITY = re.compile(r"^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)(m|k|[MGTPE]|[KMGTPE]i)?$")
_HELPLESS = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."


def quantity(value: object) -> float:
    """A Kubernetes quantity as a number. ValueError: it is none."""
    found = _QUANTITY.match(str(value))
    if found is None:
        raise ValueError(value)
    return float(found[1]) * _UNITS[found[2] or ""]


def requests(pod: Obj) -> Counter[str]:
    """What a pod reserves."""
    wanted: Counter[str] = Counter({"pods": 1})
    for container in pod["spec"]["containers"]:
        for name, value in (container.get("resources", {}).get("requests") or {}).items():
            wanted[name] += quantity(value)  # type: ignore[assignment]
    return wanted


class Scheduler:
    """Knows what the node has, and what of it is taken."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.room: dict[str, float] = {}
        """What the node has; what is not named is endless, but for extended resources (`nvidia.com/gpu`): none."""
        self.labels: dict[str, str] = {"kubernetes.io/hostname": "node-1", "kubernetes.io/os": "linux"}
        self.taints: list[dict[str, str]] = []
        self.is_lost = False
        self._taken: Counter[str] = Counter()
        self._held: dict[str, Counter[str]] = {}

    def hold(self, pod: Stored) -> str:
        """Reserve room for a pod. Returns what is missing, if anything."""
        if missing := self._claims_missing(pod) or self._node_unfit(pod.obj["spec"]):
            return missing
        wanted = requests(pod.obj)
        short = [name for name, value in wanted.items() if self._taken[name] + value > self._has(name)]
        if short:
            told = ", ".join("1 Too many pods" if name == "pods" else f"1 Insufficient {name}" for name in short)
            return (
                f"0/1 nodes are available: {told}. preemption: 0/1 nodes are available: 1 No preemption victims found"
            )
        self._held[pod.uid] = wanted
        self._taken.update(wanted)
        return ""

    def free(self, uid: str) -> bool:
        """Its room is free again. Whether it had any."""
        wanted = self._held.pop(uid, None)
        if wanted is not None:
            self._taken.subtract(wanted)
        return wanted is not None

    def _has(self, name: str) -> float:
        return self.room.get(name, 0.0 if "/" in name else float("inf"))

    def _claims_missing(self, pod: Stored) -> str:
        for name in claims(pod.obj):
            claim = self._store.get("persistentvolumeclaims", pod.namespace, name)
            if claim is None:
                return f'0/1 nodes are available: persistentvolumeclaim "{name}" not found. {_HELPLESS}'
            if claim.is_going:
                return f'0/1 nodes are available: persistentvolumeclaim "{name}" is being deleted. {_HELPLESS}'
            if claim.obj["status"]["phase"] != "Bound":
                return f"0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. {_HELPLESS}"
        return ""

    def _node_unfit(self, spec: Obj) -> str:
        if self.is_lost:
            return f"0/1 nodes are available: 1 node(s) had untolerated taint(s). {_HELPLESS}"
        for taint in self.taints:
            if not any(_tolerates(toleration, taint) for toleration in spec.get("tolerations") or ()):
                return f"0/1 nodes are available: 1 node(s) had untolerated taint(s). {_HELPLESS}"
        if not _has_labels(self.labels, spec.get("nodeSelector") or {}):
            return f"0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. {_HELPLESS}"
        return ""


def _has_labels(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in wanted.items())


def _tolerates(toleration: Obj, taint: Mapping[str, str]) -> bool:
    if toleration.get("effect") not in {None, "", taint["effect"]}:
        return False
    if toleration.get("key") not in {None, "", taint["key"]}:
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")
