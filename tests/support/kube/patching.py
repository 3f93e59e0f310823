"""The four kinds of patches."""

import json
from dataclasses import dataclass
from typing import Any

import yaml

from tests.support.kube.errors import ApiError, bad_request
from tests.support.kube.resources import Obj, Resource

_KINDS = {
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/json-patch+json": "json",
    "application/apply-patch+yaml": "apply",
}
_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "conditions": "type",
    "ownerReferences": "uid",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
}
_PORTS = {"Pod": "containerPort", "Service": "port"}
_SETS = {"finalizers"}


@dataclass(frozen=True)
class Patch:
    """What a PATCH request brings."""

    kind: str
    body: Any

    @property
    def is_apply(self) -> bool:
        """It says all that its manager wants, not what changes."""
        return self.kind == "apply"

    @classmethod
    def from_request(cls, content_type: str, raw: bytes) -> "Patch":
        """By its Content-Type."""
        kind = _KINDS.get(content_type.split(";")[0].strip())
        if kind is None:
            raise ApiError(
                415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {content_type}"
            )
        try:
            body: Any = _read(raw) if kind == "apply" else json.loads(raw)
        except (ValueError, yaml.YAMLError) as error:
            raise bad_request(f"error decoding patch: {error}") from error
        if not isinstance(body, list) if kind == "json" else not isinstance(body, dict):
            raise bad_request("error decoding patch: json: cannot unmarshal into Go value")
        if kind == "apply" and not {"apiVersion", "kind"} <= body.keys():
            raise bad_request("invalid object type: /, Kind=")
        return cls(kind, body)


def _read(raw: bytes) -> Any:
    """YAML; what is JSON is read as that, which takes a hundredth of the time."""
    try:
        return json.loads(raw)
    except ValueError:
        return yaml.safe_load(raw)


def patched(resource: Resource, old: Obj, patch: Patch, applied: Obj | None = None, before: Obj | None = None) -> Obj:
    """The object after a patch. For an apply: what it says now, and what the same manager has said before."""
    if patch.kind == "merge":
        return dict(_merged(old, patch.body))
    if patch.kind == "json":
        return _json_patched(old, patch.body)
    keys = _MERGE_KEYS | ({"ports": _PORTS[resource.kind]} if resource.kind in _PORTS else {})
    if patch.kind == "strategic":
        return dict(_strategic(old, patch.body, keys))
    return dict(_strategic(_without(old, before or {}, applied or {}, keys), applied or {}, keys))


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(new, dict):
        return new
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in new.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def _strategic(old: Any, new: Any, keys: dict[str, str]) -> Any:
    if not isinstance(new, dict):
        return new
    if new.get("$patch") == "replace":
        return {key: value for key, value in new.items() if key != "$patch"}
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in new.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            result[field] = [one for one in result.get(field) or () if one not in value]
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, list):
            result[key] = _strategic_list(result.get(key) or [], value, key, keys)
        elif not key.startswith("$"):
            result[key] = _strategic(result.get(key), value, keys)
    return result


def _strategic_list(old: list[Any], new: list[Any], field: str, keys: dict[str, str]) -> list[Any]:
    if field in _SETS:
        return list(dict.fromkeys([*old, *new]))
    name = keys.get(field)
    if name is None or any(one == {"$patch": "replace"} for one in new):
        return [one for one in new if one != {"$patch": "replace"}]
    result = {one.get(name): one for one in old}
    for one in new:
        if name not in one:
            raise bad_request(f"map: {one} does not contain declared merge key: {name}")
        if one.get("$patch") == "delete":
            result.pop(one[name], None)
        else:
            result[one[name]] = _strategic(result.get(one[name]), one, keys)
    return list(result.values())


def _without(old: Any, before: Any, applied: Any, keys: dict[str, str]) -> Any:
    """Without what a manager has said before and says no more."""
    if not (isinstance(old, dict) and isinstance(before, dict)):
        return old
    result = dict(old)
    for key, value in before.items():
        if key not in result:
            continue
        if key not in (applied or {}):
            del result[key]
        elif key in keys and isinstance(value, list):
            result[key] = _items_left(result[key], value, applied[key], keys[key])
        elif key in _SETS:
            result[key] = [one for one in result[key] if one not in value or one in applied[key]]
        else:
            result[key] = _without(result[key], value, applied[key], keys)
    return result


def _items_left(old: list[Any], before: list[Any], applied: list[Any], name: str) -> list[Any]:
    gone = {one.get(name) for one in before} - {one.get(name) for one in applied}
    return [one for one in old if one.get(name) not in gone]


def _json_patched(old: Obj, operations: list[Any]) -> Obj:
    result: Any = json.loads(json.dumps(old))
    for operation in operations:
        try:
            result = _operated(result, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            message = f"the server rejected our request due to an error in our request: {error}"
            raise ApiError(422, "Invalid", message) from error
    return dict(result)


def _operated(root: Any, operation: Obj) -> Any:
    steps = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]]
    holder = root
    for step in steps[:-1]:
        holder = holder[int(step)] if isinstance(holder, list) else holder[step]
    last: Any = steps[-1]
    if isinstance(holder, list):
        last = len(holder) if last == "-" else int(last)
    match operation["op"]:
        case "test":
            if holder[last] != operation["value"]:
                raise ValueError(f"testing path {operation['path']} failed")
        case "remove":
            del holder[last]
        case "add" if isinstance(holder, list):
            holder.insert(last, operation["value"])
        case "add":
            holder[last] = operation["value"]
        case "replace":
            _ = holder[last]
            holder[last] = operation["value"]
        case other:
            raise ValueError(f"unexpected kind: {other}")
    return root
