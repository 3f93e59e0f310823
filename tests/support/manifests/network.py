"""Who may reach whom by the network policies: what a cluster does that enforces them, for pods alone."""

from dataclasses import dataclass, field

from tests.support.manifests.objects import Obj, Objs, Workload, matches, of_kind


@dataclass(frozen=True)
class Pod:
    """One end of a connection."""

    namespace: str
    labels: dict[str, str] = field(default_factory=dict)


STRANGER = Pod("elsewhere", {"app.kubernetes.io/name": "stranger"})
"""A pod of somebody else in the cluster."""


def pod_of(maker: Workload) -> Pod:
    """One that this workload makes."""
    return Pod(maker.namespace, maker.labels)


def may_reach(objects: Objs, source: Pod, target: Pod, port: int) -> bool:
    """Whether the source may leave for there, and the target let it in."""
    return _passes(objects, source, target, port, "Egress") and _passes(objects, target, source, port, "Ingress")


def _passes(objects: Objs, own: Pod, other: Pod, port: int, way: str) -> bool:
    policies = [
        obj["spec"]
        for obj in of_kind(objects, "NetworkPolicy")
        if obj["metadata"]["namespace"] == own.namespace
        and matches(obj["spec"].get("podSelector", {}), own.labels)
        and way in obj["spec"].get("policyTypes", ["Ingress"])
    ]
    rules = [rule for policy in policies for rule in policy.get(way.lower()) or []]
    peers = "from" if way == "Ingress" else "to"
    return not policies or any(
        _is_peer(objects, rule.get(peers), own, other) and _is_port(rule.get("ports"), port) for rule in rules
    )


def _is_peer(objects: Objs, peers: list[Obj] | None, own: Pod, other: Pod) -> bool:
    return not peers or any(_selects(objects, peer, own, other) for peer in peers)


def _selects(objects: Objs, peer: Obj, own: Pod, other: Pod) -> bool:
    if "ipBlock" in peer:
        # Of pods, a policy engine may or may not take it; what depends on that is wrong.
        return False
    if "namespaceSelector" in peer:
        in_namespace = matches(peer["namespaceSelector"], _namespace_labels(objects, other.namespace))
    else:
        in_namespace = own.namespace == other.namespace
    return in_namespace and matches(peer.get("podSelector", {}), other.labels)


def _namespace_labels(objects: Objs, name: str) -> dict[str, str]:
    made = [obj for obj in of_kind(objects, "Namespace") if obj["metadata"]["name"] == name]
    labels = made[0]["metadata"].get("labels", {}) if made else {}
    return labels | {"kubernetes.io/metadata.name": name}


def _is_port(ports: list[Obj] | None, port: int) -> bool:
    return not ports or any(_fits(found, port) for found in ports)


def _fits(found: Obj, port: int) -> bool:
    first: int = found.get("port", 0)
    last: int = found.get("endPort", first or 65535)
    return found.get("protocol", "TCP") == "TCP" and first <= port <= last
