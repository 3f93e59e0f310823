"""What `kubectl apply -k` sends: as Kubernetes takes it, and as its schemas don't see."""

import os
import re
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mlhub_shared.runtime.profiles import read_profiles
from mlhub_shared.runtime.service import DRAIN
from tests.support.manifests import pod_rules, rules
from tests.support.manifests.network import STRANGER, Pod, may_reach, pod_of
from tests.support.manifests.objects import K8S, Objs, find, kustomize, of_kind, rendered, workload, workloads
from tests.support.manifests.pod_rules import quantity
from tests.support.manifests.rules import Rule
from tests.support.manifests.schemas import VERSIONS, invalid

OVERLAYS = ("single", "production")
COMPONENTS = ("ingress", "metrics", "pre-puller", "pull-secret", "quota")
FIRST_NODE = {"cpu": Decimal(2), "memory": quantity("4Gi")}
"""Of a small machine, such as minikube makes."""
CLUSTERS_OWN = {"cpu": quantity("950m"), "memory": quantity("290Mi")}
"""What its own pods ask for: kind's, which are the most."""
RULES = (*rules.RULES, *pod_rules.RULES)


def over(folder: Path, overlay: str, *lines: str) -> Objs:
    """An operator's own kustomization on top of an overlay."""
    base = os.path.relpath(K8S / "overlays" / overlay, folder)
    text = ["apiVersion: kustomize.config.k8s.io/v1beta1", "kind: Kustomization", f"resources: [{base}]", *lines]
    (folder / "kustomization.yaml").write_text("\n".join(text))
    return kustomize(folder)


def with_component(folder: Path, name: str, *lines: str) -> Objs:
    components = f"components: [{os.path.relpath(K8S / 'components' / name, folder)}]"
    return over(folder, "production", components, *lines)


def told_by(component: str) -> list[str]:
    """What its comment says that an operator's own kustomization has."""
    text = (K8S / "components" / component / "kustomization.yaml").read_text()
    return [line.removeprefix("#   ") for line in text.splitlines() if line.startswith("#   ")]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_valid_to_the_last_field(overlay: str, version: str) -> None:
    assert invalid(rendered(overlay), version) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_no_schema_sees_is_right(overlay: str, rule: Rule) -> None:
    assert list(rule(rendered(overlay))) == []


@pytest.mark.parametrize("name", COMPONENTS)
def test_components_fit(name: str, tmp_path: Path) -> None:
    found = with_component(tmp_path, name)
    assert [problem for version in VERSIONS for problem in invalid(found, version)] == []
    assert [problem for rule in RULES for problem in rule(found)] == []
    assert found != rendered("production")


def test_each_component_is_there_and_told_of() -> None:
    folders = {folder.name for folder in (K8S / "components").iterdir()}
    # Production has it.
    assert folders == {*COMPONENTS, "cert-manager"}
    assert set(re.findall(r"components/([\w-]+)/", (K8S / "README.md").read_text())) == folders


def test_who_has_no_cert_manager_takes_the_certificate_out(tmp_path: Path) -> None:
    found = over(tmp_path, "production", *told_by("cert-manager"))
    assert of_kind(rendered("production"), "Certificate")
    assert [obj for obj in rendered("production") if obj not in found] == of_kind(rendered("production"), "Certificate")


def test_a_registry_that_asks_is_shown_the_secret_by_every_pod(tmp_path: Path) -> None:
    found = with_component(tmp_path, "pull-secret")
    for maker in workloads(found):
        account = find(found, "ServiceAccount", maker.pod["serviceAccountName"], maker.namespace)
        assert account["imagePullSecrets"] == [{"name": "registry"}], maker.name


def test_prometheus_is_let_in_and_nobody_else(tmp_path: Path) -> None:
    found = with_component(tmp_path, "metrics")
    (spaces,) = [obj for obj in of_kind(found, "NetworkPolicy") if obj["metadata"]["name"] == "metrics"]
    ((source,),) = [rule["from"] for rule in spaces["spec"]["ingress"]]
    assert source == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    prometheus, asked = Pod("monitoring", {}), {"hub": 8081, "nats": 8222}
    for name in pod_rules.MADE:
        assert may_reach(found, prometheus, pod_of(workload(found, name)), asked.get(name, 8084))
        assert not may_reach(found, STRANGER, pod_of(workload(found, name)), asked.get(name, 8084))


def test_the_first_workspace_finds_room_on_a_small_machine(tmp_path: Path) -> None:
    found = rendered("single")
    file = tmp_path / "profiles.yaml"
    file.write_text(find(found, "ConfigMap", "profiles")["data"]["profiles.yaml"])
    wanted = read_profiles(file)[0][0].kubernetes
    requests = [container["resources"]["requests"] for maker in workloads(found) for container in maker.containers]
    for what, workspace in (("cpu", wanted.cpu_request), ("memory", wanted.mem_request)):
        assert workspace
        ours = sum(quantity(request[what]) for request in requests)
        assert CLUSTERS_OWN[what] + ours + Decimal(workspace) <= FIRST_NODE[what]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_bus_collects_its_garbage_below_its_limit(overlay: str) -> None:
    (container,) = workload(rendered(overlay), "nats").containers
    env = {variable["name"]: variable for variable in container["env"]}
    field = env["MEBIBYTES"]["valueFrom"]["resourceFieldRef"]
    assert field == {"resource": "limits.memory", "divisor": "1Mi"}
    limit = quantity(container["resources"]["limits"]["memory"])
    said = env["GOMEMLIMIT"]["value"].replace("$(MEBIBYTES)", str(limit / quantity(field["divisor"])))
    assert Decimal("0.9") * limit < Decimal(said) < Decimal("0.97") * limit
    assert [*env].index("MEBIBYTES") < [*env].index("GOMEMLIMIT")


def test_a_job_that_cannot_begin_is_given_up() -> None:
    spec = find(rendered("single"), "Job", "secrets")["spec"]
    assert spec["activeDeadlineSeconds"] <= 600
    assert spec["ttlSecondsAfterFinished"] <= 60


def test_pods_leave_as_slowly_as_the_load_balancer_before_them_sees_it(tmp_path: Path) -> None:
    def pauses(objects: Objs) -> dict[str, int]:
        hooks = {
            name: workload(objects, name).containers[0]["lifecycle"]["preStop"] for name in ("proxy", "ssh-gateway")
        }
        return {name: int(hook["exec"]["command"][1]) for name, hook in hooks.items()}

    assert pauses(rendered("single")) == {"proxy": 5, "ssh-gateway": 5}
    assert pauses(rendered("production")) == {"proxy": 30, "ssh-gateway": 5}
    assert pauses(with_component(tmp_path, "ingress"))["ssh-gateway"] == 30


def test_by_ingress_nothing_but_ssh_is_open_beside_it(tmp_path: Path) -> None:
    found = with_component(tmp_path, "ingress")
    types = {obj["metadata"]["name"]: obj["spec"].get("type", "ClusterIP") for obj in of_kind(found, "Service")}
    assert {name for name, kind in types.items() if kind != "ClusterIP"} == {"ssh-gateway"}
    ports = [port["port"] for port in find(found, "Service", "ssh-gateway")["spec"]["ports"]]
    assert ports == [22]
    assert find(found, "ConfigMap", "settings")["data"]["MLHUB_PROXY_TLS"] == "false"


def test_the_ingress_has_the_names_and_the_class_that_an_operator_says(tmp_path: Path) -> None:
    found = with_component(tmp_path, "ingress", *told_by("ingress"))
    assert [problem for version in VERSIONS for problem in invalid(found, version)] == []
    assert [problem for rule in RULES for problem in rule(found)] == []
    ingress = find(found, "Ingress", "proxy")["spec"]
    assert ingress["ingressClassName"] == "nginx"
    assert [rule["host"] for rule in ingress["rules"]] == ["hub.my.org"]
    assert [entry["hosts"] for entry in ingress["tls"]] == [["hub.my.org"]]
    settings = find(found, "ConfigMap", "settings")["data"]
    assert settings["MLHUB_HUB_PUBLIC_URL"] == "https://hub.my.org"
    assert settings["MLHUB_HUB_SSH_HOST"] == "ssh.my.org"
    assert settings["MLHUB_PROXY_TRUSTED_PROXIES"] == "10.244.0.0/16"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_people_come_in_by_the_proxy_alone(overlay: str) -> None:
    services = of_kind(rendered(overlay), "Service")
    open_ones = [obj["metadata"]["name"] for obj in services if obj["spec"].get("type", "ClusterIP") != "ClusterIP"]
    assert open_ones == ["proxy"]


def test_a_change_of_settings_starts_their_readers_again(tmp_path: Path) -> None:
    changed = over(
        tmp_path,
        "single",
        "configMapGenerator: [{name: settings, namespace: mlhub, behavior: merge, literals: [MLHUB_MAX_CPU=2]}]",
    )
    assert find(changed, "ConfigMap", "settings")["data"]["MLHUB_MAX_CPU"] == "2"
    for name in ("hub", "spawner-worker", "cleanup", "ssh-gateway", "proxy"):
        assert workload(changed, name).template != workload(rendered("single"), name).template
    assert workload(changed, "nats").template == workload(rendered("single"), "nats").template


def test_the_readmes_overlay_of_ones_own_is_right(tmp_path: Path) -> None:
    _, _, rest = (K8S / "README.md").read_text().partition("```yaml\n# kustomization.yaml\n")
    text = rest.partition("```")[0]
    ours = os.path.relpath(K8S / "overlays/production", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(re.sub(r"https://git\.example\.org/\S+", ours, text))
    (tmp_path / "profiles.yaml").write_text("profiles: [{name: mine, image: registry.example.org/mine}]\n")
    found = kustomize(tmp_path)
    assert [problem for version in VERSIONS for problem in invalid(found, version)] == []
    assert [problem for rule in RULES for problem in rule(found)] == []
    settings = find(found, "ConfigMap", "settings")["data"]
    assert (settings["MLHUB_HUB_SSH_HOST"], settings["MLHUB_NATS_REPLICAS"]) == ("hub.my.org", "3")
    assert "mine" in find(found, "ConfigMap", "profiles")["data"]["profiles.yaml"]
    assert find(found, "Certificate", "certificate")["spec"]["dnsNames"] == ["hub.my.org"]
    images = {one["image"] for name in (*pod_rules.MADE, "secrets") for one in workload(found, name).containers}
    assert {image.rpartition("/")[0] for image in images} == {"registry.example.org", ""}
    assert not any(image.endswith(":latest") for image in images)


def test_the_readmes_commands_name_what_is_there() -> None:
    text = (K8S / "README.md").read_text()
    scripts = (K8S.parent / "scripts/images").read_text()
    loaded = re.search(r"mlhub-\{(\S+)\}:latest", text)
    made = re.search(r"set -- (.+)", scripts)
    assert loaded
    assert made
    assert set(loaded[1].split(",")) == set(made[1].split())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_image_is_one_that_scripts_images_makes(overlay: str, tmp_path: Path) -> None:
    line = next(line for line in (K8S.parent / "scripts/images").read_text().splitlines() if "set --" in line)
    ours = {f"mlhub-{name}:latest" for name in line.partition("set -- ")[2].split()} - {"mlhub-workspace:latest"}
    found = {
        container["image"]
        for maker in map(workload, [rendered(overlay)] * 7, sorted(pod_rules.MADE | {"secrets"}))
        for container in maker.containers
    }
    assert found == ours
    moved = over(tmp_path, overlay, "images: [{name: mlhub-nats, newName: nats, newTag: 2.14-alpine}]")
    assert workload(moved, "nats").containers[0]["image"] == "nats:2.14-alpine"


def test_production_has_two_or_more_of_what_may_be_lost() -> None:
    found = rendered("production")
    replicas = {name: workload(found, name).obj["spec"].get("replicas") for name in pod_rules.MADE}
    assert replicas == {"hub": 1, "cleanup": 1, "nats": 3, "spawner-worker": 2, "proxy": None, "ssh-gateway": None}
    for obj in of_kind(found, "HorizontalPodAutoscaler"):
        assert obj["spec"]["minReplicas"] >= 2
    # What there is one of is never there twice, and what is scaled is never gone all at once.
    for name in ("hub", "cleanup"):
        assert workload(found, name).obj["spec"]["strategy"] == {"type": "Recreate"}
    for name in ("proxy", "ssh-gateway", "spawner-worker"):
        assert workload(found, name).obj["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    budgets = {obj["metadata"]["name"] for obj in of_kind(found, "PodDisruptionBudget")}
    assert budgets == pod_rules.MADE - {"hub", "cleanup"}


def test_productions_hub_keeps_nothing_and_does_not_begin_without_its_database() -> None:
    found = rendered("production")
    hub = workload(found, "hub")
    assert hub.volumes["data"] == {"name": "data", "emptyDir": {}}
    assert of_kind(found, "PersistentVolumeClaim") == []
    sources = [source["secret"] for source in hub.volumes["secrets"]["projected"]["sources"]]
    needed = [source for source in sources if source["name"] == "given" and not source.get("optional")]
    assert [item["key"] for source in needed for item in source["items"]] == ["MLHUB_HUB_DATABASE_URL"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_bus_being_away_shuts_nobody_out(overlay: str) -> None:
    found = rendered(overlay)
    # Ready is who can serve; who says more by its readiness gets requests all the same.
    for name in ("proxy", "ssh-gateway"):
        (container,) = workload(found, name).containers
        assert "tcpSocket" in container["readinessProbe"]
        assert container["startupProbe"]["httpGet"]["path"] == "/ready"
    for name in ("hub", "cleanup"):
        assert find(found, "Service", name)["spec"]["publishNotReadyAddresses"] is True


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_who_is_known_by_a_name_is_so_before_he_is_ready(overlay: str) -> None:
    found = rendered(overlay)
    env = {
        variable["name"]: variable.get("value", "")
        for service in ("proxy", "ssh-gateway", "spawner-worker")
        for variable in workload(found, service).containers[0]["env"]
    }
    names = {
        *env["MLHUB_PROXY_INTERNAL_NETWORKS"].split(","),
        env["MLHUB_SSH_GATEWAY_PROXIED_FROM"],
        urlsplit(env["MLHUB_SPAWNER_WORKER_PROBE_URL"]).hostname,
    }
    services = {name: find(found, "Service", str(name))["spec"] for name in names}
    assert {name for name, spec in services.items() if not spec.get("publishNotReadyAddresses")} == set()
    assert {spec.get("clusterIP") for spec in services.values()} == {"None"}


@pytest.mark.parametrize("overlay", [*OVERLAYS, "ingress"])
def test_everybody_gets_the_time_that_its_end_takes(overlay: str, tmp_path: Path) -> None:
    found = rendered(overlay) if overlay in OVERLAYS else with_component(tmp_path, overlay)
    for name in ("hub", "spawner-worker", "cleanup", "ssh-gateway", "proxy"):
        maker = workload(found, name)
        (container,) = maker.containers
        pause = float(container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [0, 0])[1])
        env = {variable["name"]: variable.get("value", "") for variable in container["env"]}
        # HAProxy gets its grace, then two seconds for each harder signal.
        haproxy = float(env["MLHUB_PROXY_SHUTDOWN_GRACE"]) + 4 if name == "proxy" else 0
        # The web server, then the background tasks.
        assert maker.pod["terminationGracePeriodSeconds"] >= pause + haproxy + 2 * DRAIN, name
