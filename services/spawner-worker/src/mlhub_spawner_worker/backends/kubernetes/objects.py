"""What the cluster is asked to make beside the pod: volume, name and isolation of one workspace. Pure."""

import ipaddress
from dataclasses import dataclass
from typing import Any

from mlhub_shared.contracts.policy import Profile
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_spawner_worker.backends.kubernetes import marks
from mlhub_spawner_worker.backends.restoring import ORIGIN, USER
from mlhub_spawner_worker.firewall import METADATA

Json = dict[str, Any]

_CLOSED = (
    *METADATA,
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fc00::/7",
    "fe80::/10",
)
"""Where clusters have their pods, services and nodes, and clouds what they tell machines about themselves."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""By its last four bytes, a cluster that has IPv6 alone reaches every IPv4 address, closed ones too."""

_EVERYWHERE = ("0.0.0.0/0", "::/0")

_NODE_DNS = "169.254.20.10/32"
"""Where a cache of the cluster's DNS listens on each node, if there is one."""

_KUBE_DNS = ("kube-system", {"k8s-app": "kube-dns"})

_OPENSHIFT_DNS = ("openshift-dns", {"dns.operator.openshift.io/daemonset-dns": "default"})
"""OpenShift has its own, which listens on another port than its Service has; policies are about the former."""

_DNS_PORT, _OPENSHIFT_DNS_PORT = 53, 5353

_NAMESPACE = "kubernetes.io/metadata.name"
"""A label that every namespace has."""


@dataclass(frozen=True)
class Around:
    """What a workspace's isolation must know of the cluster."""

    services_namespace: str | None
    """None: any."""
    api_port: int
    """Of the proxy, where workspaces find the hub's API."""
    open_to: tuple[str, ...] = ()
    closed_to: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    """Where names are resolved, if not by pods of the cluster."""


def claim(record: WorkspaceRecord, profile: Profile) -> Json:
    """Its volume."""
    wanted = profile.kubernetes
    spec: Json = {
        "accessModes": [wanted.access_mode],
        "resources": {"requests": {"storage": str(wanted.volume_size)}},
    }
    if wanted.storage_class is not None:
        spec["storageClassName"] = wanted.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(record),
        "spec": spec,
    }


def service(record: WorkspaceRecord, profile: Profile, *, pod: str) -> Json:
    """Its name in the DNS, which goes with the pod of that uid."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(record) | _owned("Pod", record.name, pod),
        "spec": {
            "clusterIP": "None",
            # A name that is known no sooner than Kubernetes calls the pod ready would come up to a second late.
            "publishNotReadyAddresses": True,
            "selector": {marks.WORKSPACE: record.name},
            "ports": [{"name": "http", "port": profile.port, "targetPort": profile.port, "protocol": "TCP"}],
        },
    }


def policy(record: WorkspaceRecord, around: Around, *, volume: str | None = None, pod: str | None = None) -> Json:
    """Who reaches it and what it reaches; it goes with the volume or the pod of that uid."""
    kind, uid = ("Pod", pod) if volume is None else ("PersistentVolumeClaim", volume)
    owner = _owned(kind, record.name, uid) if uid is not None else {}
    own = {"podSelector": {"matchLabels": _of_user(record)}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(record) | owner,
        "spec": {
            "podSelector": {"matchLabels": {marks.WORKSPACE: record.name}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [own, *(_service(around, name) for name in ("proxy", "ssh-gateway"))]}],
            "egress": _egress(own, around),
        },
    }


def _egress(own: Json, around: Around) -> list[Json]:
    rules: list[Json] = [
        {"to": [own]},
        {"to": [_pods(*_KUBE_DNS), *map(_block, (_NODE_DNS, *around.dns))], "ports": _both(_DNS_PORT)},
        {"to": [_pods(*_OPENSHIFT_DNS)], "ports": _both(_OPENSHIFT_DNS_PORT)},
        {"to": [_service(around, "proxy")], "ports": [{"protocol": "TCP", "port": around.api_port}]},
        {"to": [{"ipBlock": _all_but(block, (*_CLOSED, *around.closed_to))} for block in _left_open(around)]},
        {"to": [*map(_block, around.open_to)]},
    ]
    # To a cluster, a rule that names nothing is about everything.
    return [rule for rule in rules if rule["to"]]


def _left_open(around: Around) -> list[str]:
    """Nothing can be left out of a whole that is closed itself."""
    closed = set(map(ipaddress.ip_network, around.closed_to))
    return [block for block in _EVERYWHERE if ipaddress.ip_network(block) not in closed]


def _both(port: int) -> list[Json]:
    return [{"protocol": protocol, "port": port} for protocol in ("UDP", "TCP")]


def _block(network: str) -> Json:
    return {"ipBlock": {"cidr": str(ipaddress.ip_network(network))}}


def _pods(namespace: str, labels: dict[str, str]) -> Json:
    return {
        "namespaceSelector": {"matchLabels": {_NAMESPACE: namespace}},
        "podSelector": {"matchLabels": labels},
    }


def _all_but(block: str, closed: tuple[str, ...]) -> Json:
    whole = ipaddress.ip_network(block)
    networks = [ipaddress.ip_network(one) for one in closed]
    networks += [_by_nat64(network) for network in networks if isinstance(network, ipaddress.IPv4Network)]
    return {"cidr": block, "except": [str(network) for network in networks if network.version == whole.version]}


def _by_nat64(network: ipaddress.IPv4Network) -> ipaddress.IPv6Network:
    first = int(_NAT64.network_address) + int(network.network_address)
    return ipaddress.IPv6Network((first, _NAT64.prefixlen + network.prefixlen))


def _service(around: Around, name: str) -> Json:
    where = {"matchLabels": {_NAMESPACE: around.services_namespace}} if around.services_namespace else {}
    who = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "mlhub"}
    return {"namespaceSelector": where, "podSelector": {"matchLabels": who}}


def _of_user(record: WorkspaceRecord) -> dict[str, str]:
    found = marks.labels(record.workspace)
    return {ORIGIN: found[ORIGIN], USER: found[USER]}


def _metadata(record: WorkspaceRecord) -> Json:
    return {"name": record.name, "labels": marks.labels(record.workspace), "annotations": marks.whose(record)}


def _owned(kind: str, name: str, uid: str) -> Json:
    # Without blockOwnerDeletion: some clusters demand more rights for it, and nobody waits for what is owned.
    return {"ownerReferences": [{"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}]}
