"""What schemas don't see of pods: each rule yields a sentence per problem."""

import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from tests.support.manifests.objects import Obj, Objs, Workload, find, of_kind, title, walk, workloads
from tests.support.manifests.rules import Rule

MADE = {
    "hub", "spawner-worker", "proxy", "cleanup", "ssh-gateway", "nats",
}  # fmt: skip
"""Secrets that the Job makes."""
GIVEN = {"given", "certificate"}
"""Secrets that an operator makes, or cert-manager."""
MAY_ASK_THE_API = {"spawner-worker", "secrets"}

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)([numkMGTPE]|[KMGTPE]i)?")
_UNITS = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
_CONTAINER = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_VOLUMES = {"configMap", "secret", "projected", "emptyDir", "persistentVolumeClaim", "downwardAPI", "csi", "ephemeral"}
_SAFE_SYSCTLS = {"net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.tcp_syncookies"}


def quantity(text: str | float) -> Decimal:
    """The number that a quantity stands for; ValueError if it is none."""
    if (found := _QUANTITY.fullmatch(str(text))) is None:
        raise ValueError(f"no quantity: {text}")
    number, unit = Decimal(found[1]), found[2] or ""
    if unit.endswith("i"):
        return number * Decimal(1024) ** ("KMGTPE".index(unit[0]) + 1)
    return number.scaleb(_UNITS[unit])


def mounts(objects: Objs) -> Iterator[str]:
    """Every mount has a volume, every volume a mount, and no two share a path."""
    for maker in workloads(objects):
        used = {mount["name"] for container in maker.containers for mount in container.get("volumeMounts", [])}
        yield from (f"{maker}: nothing mounts volume {name}" for name in sorted(maker.volumes.keys() - used))
        for container in maker.containers:
            found = container.get("volumeMounts", [])
            missing = {mount["name"] for mount in found} - maker.volumes.keys()
            yield from (f"{maker}: no volume {name}" for name in sorted(missing))
            paths = Counter(mount["mountPath"].rstrip("/") for mount in found)
            yield from (f"{maker}: two mounts at {path}" for path, number in paths.items() if number > 1)


def duplicates(objects: Objs) -> Iterator[str]:
    """No container, volume, variable or port twice, and names that the API takes."""
    for maker in workloads(objects):
        yield from _twice(maker, "container", [container["name"] for container in maker.containers])
        yield from _twice(maker, "volume", [volume["name"] for volume in maker.pod.get("volumes", [])])
        ports = [port for container in maker.containers for port in container.get("ports", [])]
        yield from _twice(maker, "port", [port["containerPort"] for port in ports])
        yield from _twice(maker, "port", [port["name"] for port in ports if "name" in port])
        yield from (f"{maker}: no name of a port: {port}" for port in maker.ports if not _PORT_NAME.fullmatch(port))
        for container in maker.containers:
            yield from _twice(maker, "variable", [variable["name"] for variable in container.get("env", [])])
            if not _CONTAINER.fullmatch(container["name"]):
                yield f"{maker}: no name of a container: {container['name']}"


def references(objects: Objs) -> Iterator[str]:
    """ConfigMaps, Secrets, claims and accounts that a pod needs are there, or it can do without."""
    for maker in workloads(objects):
        for _, value in walk(maker.pod):
            if isinstance(value, dict):
                yield from _config_maps(objects, maker, value)
                yield from _secrets(maker, value)
        space = maker.namespace
        for volume in maker.volumes.values():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and not _has(objects, "PersistentVolumeClaim", claim, space):
                yield f"{maker}: no PersistentVolumeClaim {claim}"
        account = maker.pod.get("serviceAccountName")
        if account and not _has(objects, "ServiceAccount", account, space):
            yield f"{maker}: no ServiceAccount {account}"


def probes(objects: Objs) -> Iterator[str]:
    """Whatever runs on is probed in every way, at a port of its own, and slow starts are no deaths."""
    for maker in workloads(objects):
        if maker.obj["kind"] not in {"Deployment", "StatefulSet"}:
            continue
        for container in maker.pod["containers"]:
            own = {port.get("name") for port in container.get("ports", [])}
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                probe = container.get(kind)
                if probe is None:
                    yield f"{maker}: {container['name']} has no {kind}"
                    continue
                port = (probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port")
                if port not in own:
                    yield f"{maker}: {kind} asks port {port}, which {container['name']} has not"
            start = container.get("startupProbe") or {}
            if start.get("periodSeconds", 10) * start.get("failureThreshold", 3) < 60:
                yield f"{maker}: {container['name']} is killed if it takes a minute to start"


def resources(objects: Objs) -> Iterator[str]:
    """Quantities are some, requests are made and kept below the limits, and no memory is without one."""
    for obj in objects:
        yield from _quantities(obj)
    for maker in workloads(objects):
        for container in maker.containers:
            wanted = container.get("resources", {})
            requests, limits = wanted.get("requests", {}), wanted.get("limits", {})
            if not {"cpu", "memory"} <= requests.keys() or "memory" not in limits:
                yield f"{maker}: {container['name']} must ask for cpu and memory, and have a limit of memory"
            for name in requests.keys() & limits.keys():
                try:
                    above = quantity(requests[name]) > quantity(limits[name])
                except ValueError:
                    continue
                if above:
                    yield f"{maker}: {container['name']} asks for more {name} than its limit"


def restricted(objects: Objs) -> Iterator[str]:
    """What a namespace that enforces `restricted` admits, and a read-only root."""
    for maker in workloads(objects):
        pod, security = maker.pod, maker.pod.get("securityContext", {})
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.get(field):
                yield f"{maker}: {field}"
        for volume in pod.get("volumes", []):
            if not volume.keys() - {"name"} <= _VOLUMES:
                yield f"{maker}: volume {volume['name']} of a kind that is not allowed"
        yield from (
            f"{maker}: sysctl {sysctl['name']}"
            for sysctl in security.get("sysctls", [])
            if sysctl["name"] not in _SAFE_SYSCTLS
        )
        for container in maker.containers:
            own = security | container.get("securityContext", {})
            yield from (f"{maker}: {container['name']}: {problem}" for problem in _loose(own))
            if any("hostPort" in port for port in container.get("ports", [])):
                yield f"{maker}: {container['name']}: hostPort"


def tokens(objects: Objs) -> Iterator[str]:
    """Only who asks the API has a token for it, and an account that others have not; no Service becomes variables."""
    accounts = Counter((maker.namespace, maker.pod.get("serviceAccountName")) for maker in workloads(objects))
    for maker in workloads(objects):
        mounted = maker.pod.get("automountServiceAccountToken", True)
        if mounted and maker.name not in MAY_ASK_THE_API:
            yield f"{maker}: has a token of its service account"
        if mounted and accounts[maker.namespace, maker.pod.get("serviceAccountName")] != 1:
            yield f"{maker}: shares its service account"
        if maker.pod.get("enableServiceLinks", True):
            yield f"{maker}: gets every Service as variables"


def _twice(maker: Workload, what: str, found: list[Any]) -> Iterator[str]:
    yield from (f"{maker}: {what} {name} twice" for name, number in Counter(found).items() if number > 1)


def _config_maps(objects: Objs, maker: Workload, value: Obj) -> Iterator[str]:
    for field in ("configMap", "configMapRef", "configMapKeyRef"):
        ref = value.get(field)
        if not isinstance(ref, dict) or ref.get("optional"):
            continue
        if not _has(objects, "ConfigMap", ref["name"], maker.namespace):
            yield f"{maker}: no ConfigMap {ref['name']}"
            continue
        data = find(objects, "ConfigMap", ref["name"], maker.namespace).get("data") or {}
        keys = {item["key"] for item in ref.get("items", [])} | ({ref["key"]} if "key" in ref else set())
        yield from (f"{maker}: no key {key} in ConfigMap {ref['name']}" for key in sorted(keys - data.keys()))


def _secrets(maker: Workload, value: Obj) -> Iterator[str]:
    for field in ("secret", "secretRef", "secretKeyRef"):
        ref = value.get(field)
        if not isinstance(ref, dict):
            continue
        name = ref.get("name") or ref.get("secretName")
        if name in MADE and name != maker.name:
            yield f"{maker}: reads the Secret of {name}"
        elif name not in MADE | GIVEN:
            yield f"{maker}: nobody makes Secret {name}"


def _has(objects: Objs, kind: str, name: str, namespace: str) -> bool:
    """By its very name: a ConfigMap's with its hash."""
    return any(
        obj["metadata"]["name"] == name and obj["metadata"].get("namespace", "") == namespace
        for obj in of_kind(objects, kind)
    )


def _quantities(obj: Obj) -> Iterator[str]:
    for path, value in walk(obj):
        holder = path[-2] if len(path) > 1 else ""
        is_one = holder in {"requests", "limits", "hard", "max", "min", "default", "defaultRequest"}
        if (is_one or path[-1:] in {("sizeLimit",), ("averageValue",)}) and isinstance(value, str | int | float):
            try:
                quantity(value)
            except ValueError:
                yield f"{title(obj)}: {'/'.join(path[-2:])} is no quantity: {value}"


def _loose(security: Obj) -> Iterator[str]:
    if security.get("runAsNonRoot") is not True or security.get("runAsUser") == 0:
        yield "may be root"
    if security.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "no profile of seccomp"
    if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
        yield "may get privileges"
    capabilities = security.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield "keeps capabilities"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "its root can be written"


RULES: tuple[Rule, ...] = (mounts, duplicates, references, probes, resources, restricted, tokens)
