"""What the API's own schema says of an object: unknown fields, and values of another type."""

import functools
import json
import re
from importlib import resources
from typing import Any

from tests.support.kube.errors import bad_request
from tests.support.kube.resources import Obj, Resource

_FOLDER = "v1.36.0-local"
_GO_TYPES = {"string": "string", "integer": "int32", "boolean": "bool", "object": "struct", "array": "slice"}
_MICRO_TIME = re.compile(r".*\.\d{6}(Z|[+-]\d\d:\d\d)$")
_NAMES = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}


@functools.cache
def _definitions() -> Obj:
    path = resources.files("kubernetes_validate").joinpath("kubernetes-json-schema", _FOLDER, "_definitions.json")
    return dict(json.loads(path.read_text())["$defs"])


@functools.cache
def _of(resource: Resource) -> Obj | None:
    wanted = {"group": resource.group, "kind": resource.kind, "version": resource.version}
    for schema in _definitions().values():
        if wanted in schema.get("x-kubernetes-group-version-kind", ()):
            return dict(schema)
    return None


def pruned(resource: Resource, obj: Obj, *, strict: bool) -> Obj:
    """The object without the fields that nobody knows; `strict`: they are refused."""
    schema = _of(resource)
    if schema is None:
        return obj
    unknown: list[str] = []
    walk = _Walk(resource, unknown)
    result = walk.value(obj, schema, "")
    if strict and unknown:
        told = ", ".join(f'unknown field "{path}"' for path in unknown)
        kind = resource.kind
        raise bad_request(
            f'{kind} in version "{resource.version}" cannot be handled as a {kind}: strict decoding error: {told}'
        )
    return dict(result)


class _Walk:
    def __init__(self, resource: Resource, unknown: list[str]) -> None:
        self._resource, self._unknown = resource, unknown

    def value(self, value: Any, schema: Obj, path: str) -> Any:
        if value is None:
            return value
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[-1]
            schema = _definitions()[name]
            if name.endswith(".MicroTime") and not _MICRO_TIME.match(str(value)):
                raise bad_request(f'parsing time "{value}" as "2006-01-02T15:04:05.000000Z07:00": cannot parse')
        self._check(value, schema, path)
        if isinstance(value, list) and "items" in schema:
            return [self.value(one, schema["items"], f"{path}[{place}]") for place, one in enumerate(value)]
        if not isinstance(value, dict):
            return value
        if properties := schema.get("properties"):
            return self._fields(value, properties, path)
        inner = schema.get("additionalProperties")
        if isinstance(inner, dict):
            return {key: self.value(one, inner, f"{path}.{key}".lstrip(".")) for key, one in value.items()}
        return value

    def _fields(self, value: Obj, properties: Obj, path: str) -> Obj:
        result = {}
        for key, one in value.items():
            here = f"{path}.{key}".lstrip(".")
            if key not in properties:
                self._unknown.append(here)
            elif one is not None:
                result[key] = self.value(one, properties[key], here)
        return result

    def _check(self, value: Any, schema: Obj, path: str) -> None:
        wanted = schema.get("type")
        if isinstance(wanted, list):
            wanted = next(one for one in wanted if one != "null")
        if wanted is None or _fits(value, wanted):
            return
        given = _NAMES[type(value)]
        kind = self._resource.kind
        raise bad_request(
            f'{kind} in version "{self._resource.version}" cannot be handled as a {kind}: json: cannot unmarshal'
            f" {given} into Go struct field {path} of type {_GO_TYPES.get(wanted, wanted)}"
        )


def _fits(value: Any, wanted: str) -> bool:
    if wanted == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted == "number":
        return isinstance(value, int | float)
    known: dict[str, type] = {"string": str, "boolean": bool, "object": dict, "array": list}
    return isinstance(value, known[wanted])
