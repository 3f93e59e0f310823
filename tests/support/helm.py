"""The chart in k8s/chart, as Helm's own engine reads and renders it."""

from pathlib import Path
from typing import Any

import helm_python
import yaml

from tests.support.manifests.objects import K8S, Obj, Objs

CHART = K8S / "chart"
NAMESPACE = "mlhub"

Values = dict[str, Any]


def read_values(file: str) -> Values:
    """Of a file beside the chart's own."""
    values: Values = helm_python.values_from_yaml((CHART / file).read_text())
    return values


def render(values: Values | None = None, *, namespace: str = NAMESPACE) -> Objs:
    """Every object that an installation with these values makes, hooks among them; HelmError if it makes none."""
    texts = (text for name, text in _files(values, namespace).items() if Path(name).suffix == ".yaml")
    objects: Objs = [obj for text in texts for obj in yaml.safe_load_all(text) if obj]
    for obj in objects:
        if obj["kind"] != "Namespace":
            obj["metadata"].setdefault("namespace", namespace)
    return objects


def deploy(values: Values | None = None) -> Objs:
    """What is there then: the namespace, too, which `helm install --create-namespace` makes."""
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, *render(values)]


def notes(values: Values | None = None) -> str:
    """What `helm install` says at its end."""
    return _files(values, NAMESPACE)["mlhub/templates/NOTES.txt"]


def refusal(values: Values) -> str:
    """Why Helm installs nothing for these values."""
    try:
        render(values)
    except helm_python.HelmError as error:
        return str(error)
    raise AssertionError(f"{values} are taken")


def _files(values: Values | None, namespace: str) -> dict[str, str]:
    with helm_python.Chart.load(CHART) as chart:
        return chart.render(values or {}, name="mlhub", namespace=namespace, is_install=True)


def environment(obj: Obj) -> dict[str, Any]:
    """The variables of a workload's first container, with what each of them is."""
    container = obj["spec"]["template"]["spec"]["containers"][0]
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}
