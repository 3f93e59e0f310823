"""Label and field selectors."""

import re
from collections.abc import Callable

from tests.support.kube.errors import bad_request
from tests.support.kube.resources import Obj, Resource

Matches = Callable[[Obj], bool]

_SET = re.compile(r"^(?P<key>\S+)\s+(?P<how>in|notin)\s+\((?P<values>[^)]*)\)$")
_EQUAL = re.compile(r"^(?P<key>[^\s=!]+)\s*(?P<how>==|=|!=)\s*(?P<value>[^\s=!]*)$")
_KEY = re.compile(r"^(?P<not>!?)\s*(?P<key>[A-Za-z0-9][-A-Za-z0-9_./]*)$")

_FIELDS = {
    "pods": {"spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "status.phase", "status.podIP"},
    "events": {
        *(f"involvedObject.{field}" for field in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion")),
        *("reason", "type", "source", "reportingComponent"),
    },
    "secrets": {"type"},
    "namespaces": {"status.phase"},
}


def selecting(resource: Resource, labels: str, fields: str) -> Matches:
    """What a request selects."""
    tests = [*_label_tests(labels), *_field_tests(resource, fields)]
    if not tests:
        return lambda _: True
    return lambda obj: all(test(obj) for test in tests)


def _label_tests(text: str) -> list[Matches]:
    return [_label_test(part.strip()) for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def _label_test(part: str) -> Matches:
    if found := _SET.match(part):
        values = {value.strip() for value in found["values"].split(",")}
        return _among(found["key"], values, wanted=found["how"] == "in")
    if found := _EQUAL.match(part):
        return _among(found["key"], {found["value"]}, wanted=found["how"] != "!=")
    if found := _KEY.match(part):
        key, wanted = found["key"], not found["not"]
        return lambda obj: (key in _labels(obj)) == wanted
    raise bad_request(f"unable to parse requirement: found '{part}', expected: ',' or 'in' or 'notin'")


def _among(key: str, values: set[str], *, wanted: bool) -> Matches:
    return lambda obj: (_labels(obj).get(key) in values) == wanted


def _labels(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def _field_tests(resource: Resource, text: str) -> list[Matches]:
    return [_field_test(resource, part.strip()) for part in text.split(",") if part.strip()]


def _field_test(resource: Resource, part: str) -> Matches:
    found = _EQUAL.match(part)
    if found is None:
        raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
    path, value, wanted = found["key"], found["value"], found["how"] != "!="
    if path not in _FIELDS.get(resource.plural, set()) | {"metadata.name", "metadata.namespace"}:
        raise bad_request(f"field label not supported: {path}")
    steps = path.split(".")
    return lambda obj: (_at(obj, steps) == value) == wanted


def _at(obj: Obj, steps: list[str]) -> str:
    found: object = obj
    for step in steps:
        found = found.get(step, "") if isinstance(found, dict) else ""
    return str(found)
