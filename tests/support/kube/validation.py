"""Which objects and which changes are refused with 422."""

import re
from collections.abc import Callable, Iterator

from tests.support.kube.errors import Cause, invalid
from tests.support.kube.resources import Obj, Resource
from tests.support.kube.scheduling import quantity
from tests.support.kube.schema import pruned

_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_QUALIFIED = re.compile(r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
_ANNOTATIONS = 256 * 1024
"""Bytes of all annotations together."""
_SAYS = {
    "subdomain": "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and "
    "must start and end with an alphanumeric character",
    "label": "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
    "end with an alphanumeric character",
    "value": "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
    "start and end with an alphanumeric character",
    "key": "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character",
}
_ENUMS = {
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "terminationMessagePolicy": {"File", "FallbackToLogsOnError"},
}
_EXTENDED = re.compile(r".+/.+")


def decoded(resource: Resource, body: Obj, *, strict: bool) -> Obj:
    """What the server reads of a body; 400 for what it can't."""
    return pruned(resource, body, strict=strict)


def validate(resource: Resource, obj: Obj) -> None:
    """Refuse an object that can't be."""
    check = _CHECKS.get(resource.plural)
    causes = [*_metadata(resource, obj["metadata"]), *(check(obj.get("spec") or {}) if check else ())]
    if causes:
        raise invalid(resource, obj["metadata"].get("name", ""), causes)


def validate_change(resource: Resource, old: Obj, new: Obj) -> None:
    """Refuse to change what can't be changed."""
    check = _CHANGES.get(resource.plural)
    if check is not None and (cause := check(old["spec"], new["spec"])):
        raise invalid(resource, old["metadata"]["name"], [cause])


def _metadata(resource: Resource, metadata: Obj) -> Iterator[Cause]:
    name = metadata.get("name", "")
    is_label = resource.plural in {"services", "namespaces"}
    limit, pattern, says = (63, _LABEL, "label") if is_label else (253, _SUBDOMAIN, "subdomain")
    if not name:
        yield "metadata.name", "Required value", "name or generateName is required"
    elif len(name) > limit:
        yield "metadata.name", "Invalid value", f'"{name}": must be no more than {limit} characters'
    elif not pattern.match(name):
        yield "metadata.name", "Invalid value", f'"{name}": {_SAYS[says]}'
    yield from _labels(metadata.get("labels") or {})
    annotations = metadata.get("annotations") or {}
    for key in annotations:
        yield from _key("metadata.annotations", key)
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > _ANNOTATIONS:
        yield "metadata.annotations", "Too long", f"may not be more than {_ANNOTATIONS} bytes"
    for place, reference in enumerate(metadata.get("ownerReferences") or ()):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not reference.get(field):
                yield f"metadata.ownerReferences[{place}].{field}", "Invalid value", '"": must not be empty'


def _labels(labels: dict[str, str]) -> Iterator[Cause]:
    for key, value in labels.items():
        yield from _key("metadata.labels", key)
        if len(value) > 63:
            yield "metadata.labels", "Invalid value", f'"{value}": must be no more than 63 characters'
        elif value and not _QUALIFIED.match(value):
            yield "metadata.labels", "Invalid value", f'"{value}": {_SAYS["value"]}'


def _key(field: str, key: str) -> Iterator[Cause]:
    prefix, slash, name = key.rpartition("/")
    if len(name) > 63:
        yield field, "Invalid value", f'"{key}": name part must be no more than 63 characters'
    elif not _QUALIFIED.match(name):
        yield field, "Invalid value", f'"{key}": {_SAYS["key"]}'
    elif slash and (len(prefix) > 253 or not _SUBDOMAIN.match(prefix)):
        yield field, "Invalid value", f'"{key}": prefix part {_SAYS["subdomain"]}'


def _pod(spec: Obj) -> Iterator[Cause]:
    if not spec.get("containers"):
        yield "spec.containers", "Required value", ""
    if spec.get("restartPolicy", "Always") not in {"Always", "OnFailure", "Never"}:
        text = f'"{spec["restartPolicy"]}": supported values: "Always", "OnFailure", "Never"'
        yield "spec.restartPolicy", "Unsupported value", text
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    names: set[str] = set()
    for field in ("initContainers", "containers"):
        for place, container in enumerate(spec.get(field) or ()):
            yield from _container(f"spec.{field}[{place}]", container, volumes, names)


def _container(path: str, container: Obj, volumes: set[str], names: set[str]) -> Iterator[Cause]:
    name = container.get("name", "")
    if not name:
        yield f"{path}.name", "Required value", ""
    elif not _LABEL.match(name) or len(name) > 63:
        yield f"{path}.name", "Invalid value", f'"{name}": {_SAYS["label"]}'
    elif name in names:
        yield f"{path}.name", "Duplicate value", f'"{name}"'
    names.add(name)
    if not container.get("image"):
        yield f"{path}.image", "Required value", ""
    for field, allowed in _ENUMS.items():
        if field in container and container[field] not in allowed:
            told = ", ".join(f'"{one}"' for one in sorted(allowed))
            yield f"{path}.{field}", "Unsupported value", f'"{container[field]}": supported values: {told}'
    for place, one in enumerate(container.get("env") or ()):
        if not one.get("name"):
            yield f"{path}.env[{place}].name", "Required value", ""
    yield from _mounts(path, container, volumes)
    yield from _resources(f"{path}.resources", container.get("resources") or {})


def _mounts(path: str, container: Obj, volumes: set[str]) -> Iterator[Cause]:
    seen: set[str] = set()
    for place, mount in enumerate(container.get("volumeMounts") or ()):
        where = f"{path}.volumeMounts[{place}]"
        if mount.get("name") not in volumes:
            yield f"{where}.name", "Not found", f'"{mount.get("name")}"'
        if mount.get("mountPath") in seen:
            yield f"{where}.mountPath", "Invalid value", f'"{mount["mountPath"]}": must be unique'
        seen.add(mount.get("mountPath", ""))


def _resources(path: str, resources: Obj) -> Iterator[Cause]:
    limits, wanted = resources.get("limits") or {}, resources.get("requests") or {}
    for field, amounts in (("limits", limits), ("requests", wanted)):
        for name, value in amounts.items():
            yield from _amount(f"{path}.{field}[{name}]", name, value)
    for name in wanted.keys() | limits.keys():
        is_extended = bool(_EXTENDED.match(name))
        if is_extended and name not in limits:
            yield f"{path}.limits", "Required value", f"Limit must be set for non overcommitable resources: {name}"
        elif name in limits and name in wanted:
            yield from _request(path, name, str(wanted[name]), str(limits[name]), is_extended=is_extended)


def _request(path: str, name: str, wanted: str, limit: str, *, is_extended: bool) -> Iterator[Cause]:
    try:
        asked, most = quantity(wanted), quantity(limit)
    except ValueError:
        return
    if is_extended and asked != most:
        yield f"{path}.requests", "Invalid value", f'"{wanted}": must be equal to {name} limit of {limit}'
    elif asked > most:
        yield f"{path}.requests", "Invalid value", f'"{wanted}": must be less than or equal to {name} limit of {limit}'


def _amount(path: str, name: str, value: object) -> Iterator[Cause]:
    if "/" not in name and name not in {"cpu", "memory", "ephemeral-storage"} and not name.startswith("hugepages-"):
        yield path, "Invalid value", f'"{name}": must be a standard resource type or fully qualified'
        return
    try:
        amount = quantity(value)
    except ValueError:
        text = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        yield path, "Invalid value", f'"{value}": {text}'
        return
    if "/" in name and amount != int(amount):
        yield path, "Invalid value", f'"{value}": must be an integer'
    if amount < 0:
        yield path, "Invalid value", f'"{value}": must be greater than or equal to 0'


def _service(spec: Obj) -> Iterator[Cause]:
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None":
        yield "spec.ports", "Required value", ""
    for place, port in enumerate(ports):
        if len(ports) > 1 and not port.get("name"):
            yield f"spec.ports[{place}].name", "Required value", ""
        if not 0 < port.get("port", 0) < 65536:
            yield f"spec.ports[{place}].port", "Invalid value", f"{port.get('port', 0)}: must be between 1 and 65535"


def _claim(spec: Obj) -> Iterator[Cause]:
    modes = {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"}
    if not spec.get("accessModes"):
        yield "spec.accessModes", "Required value", "at least 1 access mode is required"
    elif unknown := set(spec["accessModes"]) - modes:
        yield "spec.accessModes", "Unsupported value", f'"{unknown.pop()}"'
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if size is None:
        yield "spec.resources[storage]", "Required value", ""
    else:
        yield from _amount("spec.resources[storage]", "memory", size)


def _pod_change(old: Obj, new: Obj) -> Cause | None:
    if _fixed(old) == _fixed(new):
        return None
    text = (
        "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
        "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
        "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
    )
    return "spec", "Forbidden", text


def _fixed(spec: Obj) -> Obj:
    kept = {key: value for key, value in spec.items() if key not in {"activeDeadlineSeconds", "tolerations"}}
    for field in ("containers", "initContainers"):
        kept[field] = [{key: value for key, value in one.items() if key != "image"} for one in kept.get(field) or ()]
    return kept


def _claim_change(old: Obj, new: Obj) -> Cause | None:
    if {**old, "resources": None} == {**new, "resources": None}:
        return None
    text = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
    return "spec", "Forbidden", text


def _service_change(old: Obj, new: Obj) -> Cause | None:
    if old.get("clusterIP") == new.get("clusterIP"):
        return None
    return "spec.clusterIPs[0]", "Invalid value", f'["{new.get("clusterIP")}"]: may not change once set'


_CHECKS: dict[str, Callable[[Obj], Iterator[Cause]]] = {
    "pods": _pod,
    "services": _service,
    "persistentvolumeclaims": _claim,
}
_CHANGES: dict[str, Callable[[Obj, Obj], Cause | None]] = {
    "pods": _pod_change,
    "persistentvolumeclaims": _claim_change,
    "services": _service_change,
}
