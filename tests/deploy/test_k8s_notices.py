"""That the checks of manifests notice what is broken: each line breaks one thing of a right deployment."""

from typing import Any

import pytest

from tests.support.manifests import pod_rules, rules
from tests.support.manifests.objects import Obj, Objs, find, rendered
from tests.support.manifests.rules import Rule
from tests.support.manifests.schemas import VERSIONS, invalid

GONE = object()
"""In the place of a value: nothing."""

HUB, CLEANUP, WORKER = "Deployment/hub", "Deployment/cleanup", "Role/spawner-worker"
POD = "spec/template/spec/"
FIRST = f"{POD}containers/0/"
LABELS = "spec/template/metadata/labels/+"
NAME = "app.kubernetes.io/name"


@pytest.fixture
def objects() -> Objs:
    return rendered("production")


def break_it(objects: Objs, what: str, path: str, value: Any) -> None:
    """Set a value inside one object; `-` at the end of the path adds to a list, `+` to a mapping."""
    kind, _, name = what.partition("/")
    holder: Any = find(objects, kind, name)
    *steps, last = path.split("/")
    for step in steps:
        holder = holder[int(step) if isinstance(holder, list) else step]
    if last == "-":
        holder.append(value)
    elif last == "+":
        holder.update(value)
    elif value is GONE:
        del holder[last]
    else:
        holder[last] = value


@pytest.mark.parametrize(
    ("rule", "says", "what", "path", "value"),
    [
        (rules.names, "no name for a Service", "Service/hub", "metadata/name", "2hub"),
        (rules.names, "no name for a Service", "Service/hub", "metadata/name", "h" * 64),
        (rules.names, "no name for a Deployment", HUB, "metadata/name", "Hub"),
        (rules.names, "namespace mlhb is not there", HUB, "metadata/namespace", "mlhb"),
        (rules.names, "label", HUB, LABELS, {"x": "a" * 64}),
        (rules.names, "label", HUB, LABELS, {"a b": "x"}),
        (rules.names, "is there 2 times", "Service/hubs", "metadata/name", "hub"),
        (rules.selectors, "does not select its own", HUB, LABELS, {NAME: "x"}),
        (rules.selectors, "selects the pods of Deployment cleanup", CLEANUP, LABELS, {NAME: "hub"}),
        (rules.selectors, "selects no pod", "Service/hub", "spec/selector/x", "y"),
        (rules.selectors, "selects no pod", "PodDisruptionBudget/proxy", "spec/selector/matchLabels/x", "y"),
        (rules.selectors, "selects no pod", "NetworkPolicy/hub", "spec/podSelector/matchLabels/x", "y"),
        (rules.service_ports, "has no port web", "Service/hub", "spec/ports/0/targetPort", "web"),
        (rules.service_ports, "has no port 99", "Service/hub", "spec/ports/0/targetPort", 99),
        (rules.service_ports, "is headless", "Service/proxies", "spec/ports/0/port", 80),
        (rules.service_ports, "port 8081 twice", "Service/hub", "spec/ports/-", {"port": 8081}),
        (rules.roles, "no verb wach", WORKER, "rules/0/verbs/-", "wach"),
        (rules.roles, "no verb *", WORKER, "rules/0/verbs/-", "*"),
        (rules.roles, "no resource pod in", WORKER, "rules/0/resources/-", "pod"),
        (rules.roles, "no resource pods in", WORKER, "rules/0/apiGroups", ["apps"]),
        (rules.roles, "in the whole cluster", WORKER, "kind", "ClusterRole"),
        (rules.roles, "no Role worker", "RoleBinding/spawner-worker", "roleRef/name", "worker"),
        (rules.roles, "no ServiceAccount", "RoleBinding/spawner-worker", "subjects/0/namespace", "mlhub-workspaces"),
        (rules.targets, "no Deployment prox", "HorizontalPodAutoscaler/proxy", "spec/scaleTargetRef/name", "prox"),
        (rules.targets, "says by itself how many", "Deployment/proxy", "spec/replicas", 2),
        (rules.targets, "no headless Service", "StatefulSet/nats", "spec/serviceName", "hub"),
        (rules.enums, "imagePullPolicy can't be Alway", HUB, f"{FIRST}imagePullPolicy", "Alway"),
        (rules.enums, "type can't be Loadbalancer", "Service/proxy", "spec/type", "Loadbalancer"),
        (rules.enums, "type can't be Rolling", HUB, "spec/strategy/type", "Rolling"),
        (rules.enums, "policyTypes can't be", "NetworkPolicy/hub", "spec/policyTypes", ["ingress"]),
        (rules.addresses, "names a namespace", HUB, f"{FIRST}env/-", {"value": "http://proxy-api.mlhub.svc:8002"}),
        (rules.addresses, "is no port of a Service", HUB, f"{FIRST}env/-", {"value": "http://proxies:8002"}),
        (rules.addresses, "no such Service", "ConfigMap/settings", "data/MLHUB_NATS_URL", "nats://bus:4222"),
        (rules.addresses, "no such Service", HUB, f"{FIRST}env/-", {"value": "http://api.$(MLHUB_NAMESPACE).svc:1"}),
        (pod_rules.mounts, "no volume more", HUB, f"{FIRST}volumeMounts/-", {"name": "more", "mountPath": "/m"}),
        (pod_rules.mounts, "nothing mounts volume more", HUB, f"{POD}volumes/-", {"name": "more"}),
        (pod_rules.mounts, "two mounts at /tmp", HUB, f"{FIRST}volumeMounts/-", {"name": "data", "mountPath": "/tmp/"}),
        (pod_rules.duplicates, "container hub twice", HUB, f"{POD}containers/-", {"name": "hub"}),
        (pod_rules.duplicates, "volume tmp twice", HUB, f"{POD}volumes/-", {"name": "tmp"}),
        (pod_rules.duplicates, "port 8081 twice", HUB, f"{FIRST}ports/-", {"containerPort": 8081}),
        (pod_rules.duplicates, "variable MLHUB_HUB_BACKEND twice", HUB, f"{FIRST}env/-", {"name": "MLHUB_HUB_BACKEND"}),
        (pod_rules.duplicates, "no name of a port", HUB, f"{FIRST}ports/0/name", "a-very-long-name"),
        (pod_rules.references, "no ConfigMap", "ConfigMap/profiles", "metadata/name", "profiles-1"),
        (pod_rules.references, "no key MLHUB_HUB_PUBLIC_URL", "ConfigMap/settings", "data/MLHUB_HUB_PUBLIC_URL", GONE),
        (pod_rules.references, "reads the Secret of hub", CLEANUP, f"{POD}volumes/0/secret/secretName", "hub"),
        (pod_rules.references, "nobody makes Secret x", CLEANUP, f"{POD}volumes/0/secret/secretName", "x"),
        (pod_rules.references, "no ServiceAccount x", HUB, f"{POD}serviceAccountName", "x"),
        (
            pod_rules.references,
            "no PersistentVolumeClaim x",
            HUB,
            f"{POD}volumes/2/persistentVolumeClaim",
            {"claimName": "x"},
        ),
        (pod_rules.probes, "has no livenessProbe", HUB, f"{FIRST}livenessProbe", GONE),
        (pod_rules.probes, "asks port web", HUB, f"{FIRST}readinessProbe/httpGet/port", "web"),
        (pod_rules.probes, "is killed if it takes a minute", HUB, f"{FIRST}startupProbe/failureThreshold", 3),
        (pod_rules.resources, "is no quantity", HUB, f"{FIRST}resources/limits/memory", "1GB"),
        (pod_rules.resources, "asks for more memory", HUB, f"{FIRST}resources/limits/memory", "1M"),
        (pod_rules.resources, "must ask for cpu", HUB, f"{FIRST}resources/requests", GONE),
        (pod_rules.restricted, "may be root", HUB, f"{POD}securityContext/runAsNonRoot", GONE),
        (pod_rules.restricted, "may be root", HUB, f"{FIRST}securityContext/runAsUser", 0),
        (pod_rules.restricted, "no profile of seccomp", HUB, f"{POD}securityContext/seccompProfile", GONE),
        (pod_rules.restricted, "keeps capabilities", HUB, f"{FIRST}securityContext/capabilities", GONE),
        (pod_rules.restricted, "may get", HUB, f"{FIRST}securityContext/allowPrivilegeEscalation", True),
        (pod_rules.restricted, "can be written", HUB, f"{FIRST}securityContext/readOnlyRootFilesystem", GONE),
        (pod_rules.restricted, "hostNetwork", HUB, f"{POD}hostNetwork", True),
        (pod_rules.restricted, "hostPort", HUB, f"{FIRST}ports/0/hostPort", 80),
        (pod_rules.restricted, "sysctl", HUB, f"{POD}securityContext/sysctls", [{"name": "kernel.msgmax"}]),
        (pod_rules.restricted, "not allowed", HUB, f"{POD}volumes/-", {"name": "x", "hostPath": {"path": "/"}}),
        (pod_rules.tokens, "has a token", HUB, f"{POD}automountServiceAccountToken", GONE),
        (pod_rules.tokens, "shares its service account", HUB, f"{POD}serviceAccountName", "spawner-worker"),
        (pod_rules.tokens, "gets every Service", HUB, f"{POD}enableServiceLinks", GONE),
    ],
)
def test_a_broken_manifest_is_noticed(objects: Objs, rule: Rule, says: str, what: str, path: str, value: Any) -> None:
    assert list(rule(objects)) == []
    break_it(objects, what, path, value)
    problems = list(rule(objects))
    assert any(says in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("what", "change"),
    [
        (HUB, {"replica": 1}),
        (HUB, {"replicas": "1"}),
        ("Service/hub", {"ports": [{"name": "http"}]}),
        ("StatefulSet/nats", {"volumeClaimTemplates": {}}),
        ("Certificate/certificate", {"dnsName": ["hub.example"]}),
        ("Certificate/certificate", {"issuerRef": {"kind": "Issuers", "name": "x"}}),
    ],
)
def test_an_invalid_object_is_noticed(objects: Objs, what: str, change: Obj) -> None:
    break_it(objects, what, "spec/+", change)
    assert [bool(invalid(objects, version)) for version in VERSIONS] == [True] * len(VERSIONS)


def test_a_kind_that_nobody_knows_is_noticed() -> None:
    strange = {"apiVersion": "example.org/v1", "kind": "Certificate", "metadata": {"name": "x"}}
    assert invalid([strange], VERSIONS[0]) == ["Certificate x: nobody knows example.org/v1 Certificate"]
