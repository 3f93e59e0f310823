"""Strict validation by the schemas of several releases of Kubernetes, and by ours of what others define."""

import json
from pathlib import Path
from typing import Any

import jsonschema
from kubernetes_validate.utils import SchemaNotFoundError, validate

from tests.support.manifests.objects import Obj, Objs, title

VERSIONS = ("1.33", "1.35", "1.37")
CRDS = Path(__file__).parents[2] / "data/crds"


def invalid(objects: Objs, version: str) -> list[str]:
    """What that release would refuse."""
    return [f"{title(obj)}: {problem}" for obj in objects if (problem := _problem(obj, version))]


def _problem(obj: Obj, version: str) -> str | None:
    group, _, number = obj["apiVersion"].rpartition("/")
    ours = CRDS / f"{obj['kind'].lower()}.{group}.{number}.json"
    try:
        if ours.is_file():
            schema: dict[str, Any] = json.loads(ours.read_text())
            jsonschema.validate(obj, schema, cls=jsonschema.Draft202012Validator)
        else:
            validate(obj, version, strict=True)
    except jsonschema.ValidationError as error:
        return str(error.message)
    except SchemaNotFoundError:
        return f"nobody knows {obj['apiVersion']} {obj['kind']}"
    return None
