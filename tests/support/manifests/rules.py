"""What schemas don't see, of objects and of how they refer to each other: each rule yields a sentence per problem."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from tests.support.manifests.objects import Obj, Objs, Workload, find, matches, of_kind, title, walk, workloads

Rule = Callable[[Objs], Iterator[str]]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SERVICE = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

_NAMES = {"Service": _SERVICE, "Namespace": _LABEL, "StatefulSet": _LABEL, "Job": _LABEL}
_CLUSTER_WIDE = {"Namespace"}

_VERBS = {"create", "get", "list", "watch", "update", "patch", "delete", "deletecollection"}
_RESOURCES = {
    "": {
        *("pods", "pods/log", "pods/exec", "pods/portforward", "services", "persistentvolumeclaims"),
        *("events", "secrets", "configmaps"),
    },
    "networking.k8s.io": {"networkpolicies"},
}

_ENUMS = {
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "restartPolicy": {"Always", "OnFailure", "Never"},
    "pathType": {"Exact", "Prefix", "ImplementationSpecific"},
    "operator": {"In", "NotIn", "Exists", "DoesNotExist"},
    "protocol": {"TCP", "UDP"},
    "whenUnsatisfiable": {"DoNotSchedule", "ScheduleAnyway"},
    "externalTrafficPolicy": {"Cluster", "Local"},
    "podManagementPolicy": {"OrderedReady", "Parallel"},
    "fsGroupChangePolicy": {"OnRootMismatch", "Always"},
    "unhealthyPodEvictionPolicy": {"IfHealthyBudget", "AlwaysAllow"},
    "sessionAffinity": {"None", "ClientIP"},
    "medium": {"", "Memory"},
}
_ENUM_PATHS = {
    ("Service", "spec", "type"): {"ClusterIP", "NodePort", "LoadBalancer"},
    ("Deployment", "spec", "strategy", "type"): {"Recreate", "RollingUpdate"},
}
_ENUM_LISTS = {
    "policyTypes": {"Ingress", "Egress"},
    "accessModes": {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"},
    "drop": {"ALL"},
}


def names(objects: Objs) -> Iterator[str]:
    """Names, labels and namespaces are such as the API takes, and no two objects are the same."""
    spaces = {obj["metadata"]["name"] for obj in of_kind(objects, "Namespace")}
    for obj in objects:
        meta = obj["metadata"]
        if not _NAMES.get(obj["kind"], _SUBDOMAIN).fullmatch(meta["name"]):
            yield f"{title(obj)}: no name for a {obj['kind']}"
        if obj["kind"] not in _CLUSTER_WIDE and meta.get("namespace") not in spaces:
            yield f"{title(obj)}: namespace {meta.get('namespace')} is not there"
        for path, value in walk(obj):
            if path[-1:] in {("labels",), ("matchLabels",)}:
                yield from (f"{title(obj)}: label {pair}" for pair in value.items() if not _is_label(*pair))
    same = Counter((obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"]) for obj in objects)
    yield from (f"{kind} {name} is there {number} times" for (kind, _, name), number in same.items() if number > 1)


def selectors(objects: Objs) -> Iterator[str]:
    """What selects pods selects some, and workloads their own alone."""
    makers = workloads(objects)
    for maker in makers:
        if maker.obj["kind"] == "Job":
            continue
        for other in _selected(objects, maker.namespace, maker.obj["spec"]["selector"]):
            if other.obj is not maker.obj:
                yield f"{maker}: selects the pods of {other}"
        if not matches(maker.obj["spec"]["selector"], maker.labels):
            yield f"{maker}: its selector does not select its own pods"
    for obj in of_kind(objects, "Service", "PodDisruptionBudget", "NetworkPolicy"):
        selector = _pod_selector(obj)
        if selector and not _selected(objects, obj["metadata"].get("namespace", ""), selector):
            yield f"{title(obj)}: selects no pod"


def service_ports(objects: Objs) -> Iterator[str]:
    """Every port of a Service leads to one that its pods have."""
    for obj in of_kind(objects, "Service"):
        spec = obj["spec"]
        twice = [port for port, number in Counter(port["port"] for port in spec["ports"]).items() if number > 1]
        yield from (f"{title(obj)}: port {port} twice" for port in twice)
        for maker in _selected(objects, obj["metadata"].get("namespace", ""), _pod_selector(obj)):
            for port in spec["ports"]:
                target = port.get("targetPort", port["port"])
                if not _is_port(maker, target):
                    yield f"{title(obj)}: {maker} has no port {target}"
                elif spec.get("clusterIP") == "None" and _number(maker, target) != port["port"]:
                    yield f"{title(obj)}: is headless, so port {port['port']} must be that of {maker} itself"


def roles(objects: Objs) -> Iterator[str]:
    """Verbs and resources exist, nothing is for all or cluster-wide, and who is bound is there."""
    for obj in objects:
        if obj["kind"].startswith("ClusterRole"):
            yield f"{title(obj)}: nobody needs rights in the whole cluster"
    for obj in of_kind(objects, "Role"):
        for rule in obj["rules"]:
            yield from (f"{title(obj)}: no verb {verb}" for verb in rule["verbs"] if verb not in _VERBS)
            known = {name for group in rule["apiGroups"] for name in _RESOURCES.get(group, ())}
            strange = [name for name in rule["resources"] if name not in known]
            yield from (f"{title(obj)}: no resource {name} in {rule['apiGroups']}" for name in strange)
    for obj in of_kind(objects, "RoleBinding"):
        space = obj["metadata"]["namespace"]
        if not _is_there(objects, "Role", obj["roleRef"]["name"], space) or obj["roleRef"]["kind"] != "Role":
            yield f"{title(obj)}: no Role {obj['roleRef']['name']} in {space}"
        for subject in obj["subjects"]:
            if not _is_there(objects, subject["kind"], subject["name"], subject.get("namespace", "")):
                yield f"{title(obj)}: no {subject['kind']} {subject['name']} in {subject.get('namespace')}"


def targets(objects: Objs) -> Iterator[str]:
    """What others point at is there."""
    for obj in of_kind(objects, "HorizontalPodAutoscaler"):
        space, ref = obj["metadata"].get("namespace", ""), obj["spec"]["scaleTargetRef"]
        if not _is_there(objects, ref["kind"], ref["name"], space):
            yield f"{title(obj)}: no {ref['kind']} {ref['name']}"
        elif "replicas" in find(objects, ref["kind"], ref["name"], space)["spec"]:
            yield f"{title(obj)}: {ref['kind']} {ref['name']} says by itself how many there are"
    for obj in of_kind(objects, "Ingress"):
        for path in (path for rule in obj["spec"]["rules"] for path in rule["http"]["paths"]):
            backend = path["backend"]["service"]
            ports = _ports(objects, backend["name"], obj["metadata"].get("namespace", ""))
            if backend["port"].get("name") not in ports and backend["port"].get("number") not in ports.values():
                yield f"{title(obj)}: no port {backend['port']} of Service {backend['name']}"
    for obj in of_kind(objects, "StatefulSet"):
        space = obj["metadata"].get("namespace", "")
        services = [found for found in of_kind(objects, "Service") if found["metadata"].get("namespace") == space]
        headless = {found["metadata"]["name"] for found in services if found["spec"].get("clusterIP") == "None"}
        if obj["spec"].get("serviceName") not in headless:
            yield f"{title(obj)}: no headless Service {obj['spec'].get('serviceName')}"


def enums(objects: Objs) -> Iterator[str]:
    """Words that the API knows."""
    for obj in objects:
        for path, value in walk(obj):
            allowed = _ENUM_PATHS.get((obj["kind"], *path)) or (_ENUMS.get(path[-1]) if path else None)
            if allowed and isinstance(value, str) and value not in allowed:
                yield f"{title(obj)}: {path[-1]} can't be {value}"
            if path and path[-1] in _ENUM_LISTS and not set(value) <= _ENUM_LISTS[path[-1]]:
                yield f"{title(obj)}: {path[-1]} can't be {value}"


def addresses(objects: Objs) -> Iterator[str]:
    """Whatever a service dials by its name is a port of a Service beside it; no URL names a namespace."""
    spaces = {obj["metadata"]["name"] for obj in of_kind(objects, "Namespace")}
    texts = [
        (obj, "/".join(path), value)
        for obj in objects
        for path, value in walk(obj)
        if isinstance(value, str) and (obj["kind"] == "ConfigMap" or "env" in path)
    ]
    for obj, where, text in texts:
        for url in re.findall(r"(?:https?|nats)://[^\s,\"']+", text):
            host = (urlsplit(url).hostname or "").partition("/")[0]
            if spaces & set(host.split(".")[1:]):
                yield f"{title(obj)}: {where} names a namespace: {url}"
            if not re.search(r"\.(example|org|com)$|^[\d.]+$", host):
                yield from _dialled(objects, obj, url)


def _dialled(objects: Objs, obj: Obj, url: str) -> Iterator[str]:
    parts = urlsplit(url.replace("$(MLHUB_NAMESPACE)", "here"))
    first, *rest = (parts.hostname or "").split(".")
    # The pod of a StatefulSet has its Service after its name.
    name = rest[0] if rest and rest[0] not in {"here", "svc"} else first
    ports = _ports(objects, name, obj["metadata"].get("namespace", ""))
    if parts.port not in ports.values():
        yield f"{title(obj)}: {url} is no port of a Service ({ports or 'no such Service'})"


def _ports(objects: Objs, service: str, namespace: str) -> dict[str, int]:
    if not _is_there(objects, "Service", service, namespace):
        return {}
    spec = find(objects, "Service", service, namespace)["spec"]
    return {port.get("name", ""): port["port"] for port in spec["ports"]}


def _is_there(objects: Objs, kind: str, name: str, namespace: str) -> bool:
    try:
        find(objects, kind, name, namespace)
    except AssertionError:
        return False
    return True


def _pod_selector(obj: Obj) -> Obj | None:
    spec = obj["spec"]
    if obj["kind"] == "Service":
        return {"matchLabels": spec["selector"]}
    selector: Obj | None = spec.get("podSelector" if obj["kind"] == "NetworkPolicy" else "selector")
    return selector


def _selected(objects: Objs, namespace: str, selector: Obj | None) -> list[Workload]:
    return [maker for maker in workloads(objects) if maker.namespace == namespace and matches(selector, maker.labels)]


def _is_port(maker: Workload, port: str | int) -> bool:
    return port in (maker.ports if isinstance(port, str) else maker.ports.values())


def _number(maker: Workload, port: str | int) -> int:
    return maker.ports[port] if isinstance(port, str) else port


def _is_label(key: str, value: str) -> bool:
    return bool(_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value))


RULES: tuple[Rule, ...] = (names, selectors, service_ports, roles, targets, enums, addresses)
