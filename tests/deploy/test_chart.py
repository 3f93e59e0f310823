"""The chart: the same objects as the overlays, and what its own values change in them."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from mlhub_shared.runtime.profiles import read_profiles
from tests.support.helm import CHART, Values, deploy, environment, notes, read_values, refusal, render
from tests.support.manifests import pod_rules, rules
from tests.support.manifests.objects import K8S, Obj, Objs, find, kustomize
from tests.support.manifests.schemas import VERSIONS, invalid

HASHED = re.compile(r"(settings|profiles|nats-config)-[a-z0-9]{10}")
"""Names that kustomize gives to ConfigMaps, so that a change of one makes new pods; here a checksum does."""

LABELS = {
    *("app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "helm.sh/chart"),
    # What the overlays add to the base has it not. Of pods, by which it selects, it is compared.
    "app.kubernetes.io/part-of",
}
HELMS_ANNOTATIONS = {
    # Secrets are made before anything else of a release, and what may make them is gone then.
    *("helm.sh/hook", "helm.sh/hook-weight", "helm.sh/hook-delete-policy"),
    # What people have outlives the release.
    "helm.sh/resource-policy",
    # In place of hashes in names.
    *("checksum/settings", "checksum/profiles", "checksum/nats", "checksum/userConfig", "checksum/database"),
}
HELMS_OWN = {("Namespace", "", "mlhub")}
"""In the overlays alone: `helm install --create-namespace` makes it."""

POSTGRES = {"db": {"type": "postgres", "url": "postgresql://hub@db/hub", "password": "of the database"}}
INGRESS: Values = {
    "ingress": {
        "enabled": True,
        "hosts": ["hub.example.org"],
        "tls": [{"hosts": ["hub.example.org"], "secretName": "t"}],
    },
    "sshGateway": {"host": "ssh.example.org", "service": {"type": "LoadBalancer"}},
    "settings": {"MLHUB_PROXY_TRUSTED_PROXIES": "10.0.0.0/8"},
}
EVERYTHING: Values = {
    "imagePullSecrets": ["registry"],
    "images": {"registry": "registry.example.org/mlhub", "tag": "1.2.3"},
    "publicUrl": "https://hub.example.org",
    "hub": {
        **POSTGRES,
        "config": {"JupyterHub": {"authenticator_class": "dummy"}},
        "annotations": {"example.org/a": "b"},
        "nodeSelector": {"disk": "ssd"},
        "extraEnv": {"PLAIN": 1, "SECRET": {"valueFrom": {"secretKeyRef": {"name": "given", "key": "A"}}}},
    },
    "proxy": {"https": {"enabled": True, "type": "letsencrypt", "hosts": ["hub.example.org"]}},
    "scheduling": {
        "corePods": {"tolerations": [{"operator": "Exists"}], "nodeAffinity": {"matchNodePurpose": "require"}}
    },
    "prePuller": {"continuous": {"enabled": True}, "extraImages": {"other": {"name": "registry.example.org/other"}}},
    "workspaces": {"quota": {"requests.memory": "400Gi"}},
}

DEPLOYMENTS: dict[str, Values] = {
    "single": {},
    "production": read_values("values-production.yaml"),
    "ingress": INGRESS,
    "everything": EVERYTHING,
}


@pytest.mark.parametrize("overlay", ["single", "production"])
def test_the_chart_makes_what_the_overlay_makes(overlay: str) -> None:
    ours = _comparable(render(DEPLOYMENTS[overlay]))
    theirs = _comparable(kustomize(K8S / "overlays" / overlay))
    assert theirs.keys() - ours.keys() == HELMS_OWN
    assert ours.keys() <= theirs.keys()
    different = {name: (theirs[name], ours[name]) for name in ours if ours[name] != theirs[name]}
    assert different == {}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_whatever_is_made_is_valid(version: str, values: Values) -> None:
    objects = deploy(values)
    assert invalid(objects, version) == []
    problems = [problem for rule in (*rules.RULES, *pod_rules.RULES) for problem in rule(objects)]
    # Secrets of this chart's own, beside those that the Job makes and an operator gives.
    assert [problem for problem in problems if not re.search("Secret hub-(config|database)", problem)] == []


@pytest.mark.parametrize("values", DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_helm_finds_nothing_to_complain_of(values: Values) -> None:
    report = helm_python.lint(CHART, values, strict=True, namespace="mlhub")
    assert report["errors"] == []
    assert [found["error"] for found in report["messages"]] == ["icon is recommended"]


def test_a_package_of_the_chart_renders_the_same(tmp_path: Path) -> None:
    package = helm_python.package(CHART, destination=tmp_path)
    with helm_python.Chart.load(package) as packaged, helm_python.Chart.load(CHART) as ours:
        assert packaged.render({}, name="mlhub") == ours.render({}, name="mlhub")
        assert packaged.metadata["apiVersion"] == "v2"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"hubb": {}}, "additional properties 'hubb' not allowed"),
        ({"hub": {"replicas": 2}}, "at '/hub': additional properties 'replicas' not allowed"),
        ({"worker": {"replicas": "two"}}, "at '/worker/replicas': got string, want"),
        ({"nats": {"replicas": 2}}, "at '/nats/replicas': value must be one of 1, 3"),
        ({"settings": {"HOME": "/"}}, "settings.HOME: no service has a setting of this name"),
        ({"publicUrl": "hub.example.org"}, "at '/publicUrl'"),
        ({"singleuser": {"memory": {"limit": "1GB of it"}}}, "at '/singleuser/memory/limit'"),
        ({"singleuser": {"profileList": [{"description": "a"}]}}, "missing property 'display_name'"),
        ({"proxy": {"service": {"type": "Load"}}}, "at '/proxy/service/type': value must be one of"),
        ({"proxy": {"https": {"enabled": True}}}, "proxy.https.hosts: needed"),
        (
            {"proxy": {"https": {"enabled": True, "type": "manual", "hosts": ["a"]}}},
            "proxy.https.manual: needs key and cert",
        ),
        ({"proxy": {"https": {"enabled": True, "type": "secret", "hosts": ["a"]}}}, "proxy.https.secret.name: needed"),
        (
            {"publicUrl": "http://a", "proxy": {"https": {"enabled": True, "hosts": ["a"]}}},
            "publicUrl: must begin with https",
        ),
        ({"workspaces": {"namespace": "mlhub"}}, "workspaces.namespace: must be another one"),
        ({**INGRESS, "sshGateway": {"service": {"type": "LoadBalancer"}}}, "sshGateway.host: needed with an ingress"),
        ({"certManager": {"enabled": True}}, "certManager.enabled: needs proxy.https.hosts"),
        ({"hub": {"db": {"type": "mysql", "url": "mysql://a"}}}, "hub.db.type: sqlite-pvc or postgres"),
        ({"hub": {"db": {"url": "postgresql://a"}}}, "hub.db.url: needs hub.db.type postgres"),
        ({"profiles": [{"name": "a", "image": "b"}], "singleuser": {"image": {"name": "c"}}}, "give one of the two"),
    ],
    ids=str,
)
def test_values_that_are_wrong_are_told(values: Values, told: str) -> None:
    assert told in refusal(values)


def test_settings_and_profiles_of_ones_own_arrive(tmp_path: Path) -> None:
    objects = render(
        {"settings": {"MLHUB_MAX_MEM": "16G", "MLHUB_MAX_GPUS": 2}, "profiles": [{"name": "a", "image": "b"}]}
    )
    settings = find(objects, "ConfigMap", "settings")["data"]
    assert (settings["MLHUB_MAX_MEM"], settings["MLHUB_MAX_GPUS"]) == ("16G", "2")
    # What is meant for our own profile limits no other.
    assert "MLHUB_MAX_CPU" not in settings
    file = tmp_path / "profiles.yaml"
    file.write_text(find(objects, "ConfigMap", "profiles")["data"]["profiles.yaml"])
    (profile,), _ = read_profiles(file)
    assert (profile.name, profile.image) == ("a", "b")


def test_whole_numbers_arrive_as_they_are_written() -> None:
    million = 10**6
    objects = render(
        {
            "settings": {"MLHUB_SPAWNER_WORKER_CAPACITY": million, "MLHUB_MAX_CPU": 0.5},
            "hub": {"extraEnv": {"MANY": million}},
            "singleuser": {
                "extraEnv": {"MANY": million, "NAMED": {"value": million}},
                "profileList": [{"display_name": "A", "kubespawner_override": {"environment": {"MANY": million}}}],
            },
        }
    )
    settings = find(objects, "ConfigMap", "settings")["data"]
    assert (settings["MLHUB_SPAWNER_WORKER_CAPACITY"], settings["MLHUB_MAX_CPU"]) == ("1000000", "0.5")
    assert environment(find(objects, "Deployment", "hub"))["MANY"] == "1000000"
    values = json.loads(find(objects, "Secret", "hub-config")["stringData"]["values.json"])
    assert values["environment"] == {"MANY": "1000000", "NAMED": "1000000"}
    (profile,) = yaml.safe_load(find(objects, "ConfigMap", "profiles")["data"]["profiles.yaml"])["profiles"]
    assert profile["env"] == {"MANY": "1000000"}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("proxy", {"proxy": {"service": {"type": "LoadBalancer"}}}),
        ("ssh-gateway", {"sshGateway": {"service": {"type": "LoadBalancer"}}}),
    ],
)
def test_behind_a_clouds_load_balancer_pods_leave_slowly(name: str, values: Values) -> None:
    for given, pause, least in ((values, 30, 79), ({}, 5, 25)):
        pod = find(render(given), "Deployment", name)["spec"]["template"]["spec"]
        assert pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", str(pause)]
        assert pod["terminationGracePeriodSeconds"] >= least


def test_no_cluster_is_too_old_that_the_chart_takes() -> None:
    oldest = re.search(r"Kubernetes ([\d.]+) or newer", (K8S / "README.md").read_text())
    assert oldest
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"] == f">={oldest[1]}.0-0"


def test_a_change_of_configuration_makes_new_pods_of_those_that_read_it() -> None:
    def sums(values: Values) -> dict[str, Any]:
        objects = render(values)
        return {
            obj["metadata"]["name"]: obj["spec"]["template"]["metadata"]["annotations"]
            for obj in objects
            if obj["kind"] in {"Deployment", "StatefulSet"}
        }

    before, after = sums({}), sums({"profiles": [{"name": "a", "image": "b"}], "settings": {"MLHUB_MAX_CPU": 4}})
    settings = sums({"settings": {"MLHUB_LOG_LEVEL": "debug"}})
    assert {name for name in before if before[name] != settings[name]} == before.keys() - {"nats"}
    assert before["nats"] == after["nats"]
    assert before["hub"]["checksum/profiles"] != after["hub"]["checksum/profiles"]
    config = sums({"hub": {"config": {"Authenticator": {"auto_login": True}}}})
    assert before["hub"]["checksum/userConfig"] != config["hub"]["checksum/userConfig"]
    assert before["hub"]["checksum/database"] != sums({"hub": POSTGRES})["hub"]["checksum/database"]


def test_namespaces_are_the_operators() -> None:
    objects = render({"workspaces": {"namespace": "rooms", "createNamespace": False}}, namespace="house")
    assert {obj["metadata"].get("namespace") for obj in objects} == {"house", "rooms"}
    assert find(objects, "ConfigMap", "settings")["data"]["MLHUB_SPAWNER_WORKER_NAMESPACE"] == "rooms"
    binding = find(objects, "RoleBinding", "spawner-worker", "rooms")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "spawner-worker", "namespace": "house"}]
    policy = find(objects, "NetworkPolicy", "proxy", "house")
    assert "rooms" in yaml.safe_dump(policy)
    assert "mlhub-workspaces" not in yaml.safe_dump_all(objects)


def test_what_people_have_stays_when_the_release_goes() -> None:
    objects = render()
    for kind, name in (("Namespace", "mlhub-workspaces"), ("PersistentVolumeClaim", "hub")):
        assert find(objects, kind, name)["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_secrets_are_made_before_all_else() -> None:
    hooks = [obj for obj in render() if "helm.sh/hook" in obj["metadata"].get("annotations", {})]
    assert {obj["kind"] for obj in hooks} == {"Job", "ServiceAccount", "Role", "RoleBinding"}
    assert {obj["metadata"]["name"] for obj in hooks} == {"secrets"}
    weights = {obj["kind"]: int(obj["metadata"]["annotations"]["helm.sh/hook-weight"]) for obj in hooks}
    assert all(weights["Job"] > weight for kind, weight in weights.items() if kind != "Job")


def test_people_come_in_by_an_ingress() -> None:
    objects = render(INGRESS)
    assert "type" not in find(objects, "Service", "proxy")["spec"]
    assert find(objects, "Ingress", "proxy")["spec"]["rules"][0]["host"] == "hub.example.org"
    settings = find(objects, "ConfigMap", "settings")["data"]
    # The ingress ends TLS, and passes no SSH: that has an address of its own.
    assert settings["MLHUB_HUB_PUBLIC_URL"] == "https://hub.example.org"
    assert (settings["MLHUB_HUB_SSH_HOST"], settings["MLHUB_HUB_SSH_PORT"]) == ("ssh.example.org", "22")
    assert "MLHUB_PROXY_TLS" not in settings
    assert "TRUSTED_PROXIES" in notes({**INGRESS, "settings": {}})
    assert "TRUSTED_PROXIES" not in notes(INGRESS)
    without = {**INGRESS, "sshGateway": {}}
    assert "passes no SSH" in notes(without)
    assert "passes no SSH" not in notes(INGRESS)
    by_node = {"host": "node.example.org", "service": {"type": "NodePort", "nodePort": 32022}}
    settings = find(render({**INGRESS, "sshGateway": by_node}), "ConfigMap", "settings")["data"]
    assert (settings["MLHUB_HUB_SSH_HOST"], settings["MLHUB_HUB_SSH_PORT"]) == ("node.example.org", "32022")


def test_all_that_can_be_set_arrives() -> None:
    objects = render(EVERYTHING)
    hub = find(objects, "Deployment", "hub")
    pod = hub["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "registry.example.org/mlhub/mlhub-hub:1.2.3"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["nodeSelector"] == {"disk": "ssd"}
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert "requiredDuringSchedulingIgnoredDuringExecution" in pod["affinity"]["nodeAffinity"]
    variables = environment(hub)
    assert variables["PLAIN"] == "1"
    assert variables["SECRET"] == {"secretKeyRef": {"name": "given", "key": "A"}}
    assert variables["PGPASSWORD"] == {"secretKeyRef": {"name": "hub-database", "key": "PGPASSWORD"}}
    database = find(objects, "Secret", "hub-database")["stringData"]
    assert database == {"MLHUB_HUB_DATABASE_URL": "postgresql://hub@db/hub", "PGPASSWORD": "of the database"}
    assert not [obj for obj in objects if obj["kind"] == "PersistentVolumeClaim"]
    settings = find(objects, "ConfigMap", "settings")["data"]
    assert (settings["MLHUB_PROXY_TLS"], settings["MLHUB_PROXY_ACME_DOMAINS"]) == ("true", "hub.example.org")
    puller = find(objects, "DaemonSet", "pre-puller")["spec"]["template"]["spec"]
    images = [container["image"] for container in puller["initContainers"]]
    assert images == ["registry.example.org/mlhub/mlhub-workspace:1.2.3", "registry.example.org/other"]
    assert puller["imagePullSecrets"] == [{"name": "registry"}]


def test_a_certificate_of_ones_own_is_shown() -> None:
    https = {
        "enabled": True,
        "type": "manual",
        "hosts": ["hub.example.org"],
        "manual": {"key": "the key", "cert": "the cert"},
    }
    objects = render({"proxy": {"https": https}})
    assert find(objects, "Secret", "certificate")["stringData"] == {"tls.crt": "the cert", "tls.key": "the key"}
    named = {"enabled": True, "type": "secret", "hosts": ["a"], "secret": {"name": "mine", "key": "k", "crt": "c"}}
    volume = find(render({"proxy": {"https": named}}), "Deployment", "proxy")["spec"]["template"]["spec"]["volumes"][0]
    assert volume["projected"]["sources"][1]["secret"] == {
        "name": "mine",
        "optional": True,
        "items": [{"key": "c", "path": "cert.crt"}, {"key": "k", "path": "cert.key"}],
    }


def test_the_notes_tell_where_to_begin() -> None:
    first = notes()
    assert "logs deployment/hub | grep signup" in first
    assert "port-forward service/proxy 8080:80" in first
    production = notes(read_values("values-production.yaml"))
    assert "https://hub.example.org" in production
    assert "create secret generic given --from-literal MLHUB_HUB_DATABASE_URL" in production
    assert "signup" not in notes(EVERYTHING)


def _comparable(objects: Objs) -> dict[tuple[str, str, str], Obj]:
    """By kind, namespace and name, without what kustomize and Helm each add."""
    found = {}
    for obj in copy.deepcopy(objects):
        meta = obj["metadata"]
        _drop(meta, "labels", LABELS)
        _drop(meta, "annotations", HELMS_ANNOTATIONS)
        if template := obj.get("spec", {}).get("template"):
            _drop(template["metadata"], "annotations", HELMS_ANNOTATIONS)
        if obj["kind"] == "ConfigMap":
            obj["data"] = {name: _content(name, text) for name, text in obj["data"].items()}
        obj = _plain(obj)
        found[obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]] = obj
    return found


def _drop(meta: Obj, what: str, names: set[str]) -> None:
    left = {name: value for name, value in meta.pop(what, {}).items() if name not in names}
    meta |= {what: left} if left else {}


def _content(name: str, text: str) -> Any:
    """What a file says, without its comments."""
    if name == "profiles.yaml":
        profiles = yaml.safe_load(text)["profiles"]
        # The chart names the tag; what has none is the latest.
        return [{**each, "image": each["image"].removesuffix(":latest")} for each in profiles]
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _plain(value: Any) -> Any:
    """Without hashes in names, and ports in one order."""
    if isinstance(value, dict):
        return {
            key: sorted(inner, key=lambda port: port["name"]) if _is_ports(key, inner) else _plain(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    match = HASHED.fullmatch(value) if isinstance(value, str) else None
    return match[1] if match else value


def _is_ports(key: str, value: Any) -> bool:
    return key == "ports" and all("name" in port for port in value)
