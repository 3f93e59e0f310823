"""What the server fills in when an object is created."""

import hashlib
from collections.abc import Callable

from tests.support.kube.resources import Obj, Resource

_NOT_READY = [
    {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for taint in ("not-ready", "unreachable")
]
PVC_PROTECTION = "kubernetes.io/pvc-protection"


def completed(resource: Resource, obj: Obj) -> Obj:
    """The object as it is stored."""
    fill = _FILL.get(resource.plural)
    return fill(obj) if fill else obj


def _pod(obj: Obj) -> Obj:
    given = obj.get("spec") or {}
    account = given.get("serviceAccountName") or "default"
    spec = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "enableServiceLinks": True,
        "priority": 0,
        "preemptionPolicy": "PreemptLowerPriority",
        **given,
        "serviceAccountName": account,
        "serviceAccount": account,
        "tolerations": _tolerations(given.get("tolerations") or []),
    }
    for field in ("containers", "initContainers"):
        if field in given:
            spec[field] = [_container(container) for container in given[field]]
    if spec.get("automountServiceAccountToken") is not False:
        _mount_token(spec, obj["metadata"]["name"])
    status = {"phase": "Pending", "qosClass": _quality(spec["containers"])}
    return {**obj, "spec": spec, "status": status}


def _tolerations(given: list[Obj]) -> list[Obj]:
    keys = {toleration.get("key") for toleration in given if toleration.get("effect") in {"NoExecute", None}}
    return given if None in keys else [*given, *(one for one in _NOT_READY if one["key"] not in keys)]


def _container(container: Obj) -> Obj:
    resources = container.get("resources") or {}
    if limits := resources.get("limits"):
        resources = {**resources, "requests": {**limits, **(resources.get("requests") or {})}}
    image = container.get("image", "")
    last = image.rsplit("/", 1)[-1]
    is_latest = "@" not in last and (":" not in last or last.endswith(":latest"))
    return {
        "imagePullPolicy": "Always" if is_latest else "IfNotPresent",
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        **container,
        "resources": resources,
    }


def _mount_token(spec: Obj, name: str) -> None:
    volume = f"kube-api-access-{hashlib.sha256(name.encode()).hexdigest()[:5]}"
    source = {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}
    spec["volumes"] = [*spec.get("volumes", []), {"name": volume, "projected": {"sources": [source]}}]
    mount = {"name": volume, "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    for field in ("containers", "initContainers"):
        if field in spec:
            spec[field] = [{**one, "volumeMounts": [*one.get("volumeMounts", []), mount]} for one in spec[field]]


def _quality(containers: list[Obj]) -> str:
    resources = [container["resources"] for container in containers]
    if not any(one.get("limits") or one.get("requests") for one in resources):
        return "BestEffort"
    wanted = {"cpu", "memory"}
    if all(wanted <= set(one.get("limits", {})) and one["limits"] == one["requests"] for one in resources):
        return "Guaranteed"
    return "Burstable"


def _service(obj: Obj) -> Obj:
    given = obj.get("spec") or {}
    digest = hashlib.sha256(obj["metadata"]["name"].encode()).digest()
    address = given.get("clusterIP") or f"10.96.{digest[0]}.{digest[1] or 1}"
    spec = {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        **given,
        "clusterIP": address,
        "clusterIPs": [address],
    }
    spec["ports"] = [{"protocol": "TCP", "targetPort": port.get("port"), **port} for port in given.get("ports") or []]
    if not spec["ports"]:
        del spec["ports"]
    return {**obj, "spec": spec, "status": {"loadBalancer": {}}}


def _claim(obj: Obj) -> Obj:
    metadata = obj["metadata"]
    finalizers = [*(metadata.get("finalizers") or []), PVC_PROTECTION]
    spec = {"volumeMode": "Filesystem", **(obj.get("spec") or {})}
    spec.setdefault("storageClassName", "standard")
    metadata = {**metadata, "finalizers": list(dict.fromkeys(finalizers))}
    return {**obj, "metadata": metadata, "spec": spec, "status": {"phase": "Pending"}}


def _policy(obj: Obj) -> Obj:
    given = obj.get("spec") or {}
    types = ["Ingress", "Egress"] if "egress" in given else ["Ingress"]
    return {**obj, "spec": {"policyTypes": types, **given}}


def _namespace(obj: Obj) -> Obj:
    metadata = obj["metadata"]
    labels = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata["name"]}
    return {**obj, "metadata": {**metadata, "labels": labels}, "status": {"phase": "Active"}}


def _quota(obj: Obj) -> Obj:
    hard = (obj.get("spec") or {}).get("hard", {})
    return {**obj, "status": {"hard": hard}}


_FILL: dict[str, Callable[[Obj], Obj]] = {
    "pods": _pod,
    "services": _service,
    "persistentvolumeclaims": _claim,
    "networkpolicies": _policy,
    "namespaces": _namespace,
    "resourcequotas": _quota,
}
