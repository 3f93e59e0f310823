"""What the cluster is asked to make."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from kubernetes_validate.utils import validate

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.policy import SharedVolume
from mlhub_shared.contracts.workspace import Phase, WorkspaceSecrets, WorkspaceSpec
from mlhub_spawner_worker.backends.base import BackendError, Job
from mlhub_spawner_worker.backends.kubernetes import body, marks, objects
from mlhub_spawner_worker.firewall import METADATA
from tests.support.kube_backend import IMAGE, profile
from tests.support.makers import record

VERSION = "1.36"
AROUND = objects.Around("mlhub", 8002, open_to=("10.9.8.7",), closed_to=("192.0.2.0/24",), dns=("169.254.169.254",))

EVERYTHING: dict[str, Any] = {
    "priority_class": "high",
    "image_pull_secrets": ["registry"],
    "service_account": "reader",
    "node_selector": {"disk": "fast"},
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"nodeAffinity": {}},
    "labels": {"team": "a"},
    "annotations": {"note": "b"},
    "init_containers": [{"name": "fill", "image": "busybox", "volumeMounts": [{"name": "home", "mountPath": "/h"}]}],
    "cpu_request": 0.25,
    "mem_request": "1G",
    "read_only_root": True,
    "storage_class": "fast",
}


def job(*, env: dict[str, str] | None = None, **spec: Any) -> Job:
    return Job(record(phase=Phase.PREPARING, spec=WorkspaceSpec(env=env or {}, **spec)), WorkspaceSecrets(generation=1))


def pod(wanted: Job, **changes: Any) -> dict[str, Any]:
    return body.pod(body.Plan(wanted, profile(**changes), unreachable=timedelta(seconds=90)))


def container(thing: dict[str, Any]) -> dict[str, Any]:
    [found] = thing["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def test_everything_is_as_the_api_has_it() -> None:
    wanted = job(cpu_limit=2, mem_limit=2**32, shm_size=2**28, gpus="count:2")
    volumes = (SharedVolume(source="data", target="/d"), SharedVolume(source="nfs://server/p", target="/n"))
    full = pod(wanted, kubernetes=EVERYTHING, volumes=volumes, node_labels={"zone": "b"}, user="1000:100")
    claim = objects.claim(wanted.record, profile(kubernetes=EVERYTHING))
    service = objects.service(wanted.record, profile(), pod="uid-of-pod")
    policies = [objects.policy(wanted.record, AROUND, volume=volume) for volume in ("uid-of-volume", None)]
    for thing in (full, pod(job()), claim, service, *policies):
        validate(thing, VERSION, strict=True)


def test_limits_and_requests_are_told_apart() -> None:
    wanted = job(cpu_limit=2, mem_limit=2**31, gpus="count:2")
    kubernetes = {"cpu_request": 0.25, "mem_request": "8G", "gpu_resource": "amd.com/gpu"}
    resources = container(pod(wanted, kubernetes=kubernetes))["resources"]
    assert resources["limits"] == {"cpu": "2000m", "memory": str(2**31), "amd.com/gpu": "2"}
    # A request is never more than its limit.
    assert resources["requests"] == {"cpu": "250m", "memory": str(2**31)}


def test_nobody_gains_rights_unless_the_profile_says_so() -> None:
    made = pod(job())
    assert made["spec"]["automountServiceAccountToken"] is False
    assert made["spec"]["securityContext"]["runAsNonRoot"] is True
    assert made["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    rights = container(made)["securityContext"]
    assert (rights["allowPrivilegeEscalation"], rights["capabilities"]) == (False, {"drop": ["ALL"]})


def test_an_init_container_has_the_rights_that_it_names_and_no_others() -> None:
    rights = {"runAsUser": 0, "runAsNonRoot": False, "capabilities": {"add": ["CHOWN"]}}
    inits = [{"name": "own", "image": "busybox", "securityContext": rights}, {"name": "fill", "image": "busybox"}]
    own, fill = pod(job(), kubernetes={"init_containers": inits})["spec"]["initContainers"]
    assert own["securityContext"] == fill["securityContext"] | rights | {
        "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}
    }
    assert fill["securityContext"]["allowPrivilegeEscalation"] is False
    assert fill["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_values_are_kept_as_they_are() -> None:
    made = container(pod(job(env={"MINE": "$(HOME) costs 5$"}), command=("sh", "-c", "echo $(date)")))
    [mine] = [one["value"] for one in made["env"] if one["name"] == "MINE"]
    # Two dollars stand for one.
    assert mine == "$$(HOME) costs 5$$"
    assert made["args"] == ["sh", "-c", "echo $$(date)"]


@pytest.mark.parametrize(("gpus", "given"), [("count:1", {}), (None, {"NVIDIA_VISIBLE_DEVICES": "void"})])
def test_nobody_helps_himself_to_a_nodes_gpus(gpus: str | None, given: dict[str, str]) -> None:
    everything = dict.fromkeys(("NVIDIA_VISIBLE_DEVICES", "NVIDIA_MIG_CONFIG_DEVICES", "AMD_VISIBLE_DEVICES"), "all")
    wanted = job(env={**everything, "NVIDIA_DRIVER_CAPABILITIES": "all"}, gpus=gpus)
    secrets = wanted.secrets.model_copy(update={"secret_env": {"HABANA_VISIBLE_DEVICES": "all"}})
    env = container(pod(replace(wanted, secrets=secrets)))["env"]
    found = {one["name"]: one["value"] for one in env if "NVIDIA" in one["name"] or "DEVICES" in one["name"]}
    assert found == {**given, "NVIDIA_DRIVER_CAPABILITIES": "all"}


@pytest.mark.parametrize(
    ("changes", "spec", "words"),
    [
        ({"user": "jovyan"}, {}, "by number only"),
        ({"user": "0"}, {}, "runs as root"),
        ({"volumes": (SharedVolume(source="/data", target="/d"),)}, {}, "/data of the node"),
        ({}, {"gpus": "all"}, "how many"),
    ],
)
def test_what_no_pod_can_have_is_refused_in_words(changes: dict[str, Any], spec: dict[str, Any], words: str) -> None:
    with pytest.raises(BackendError, match=words):
        pod(job(**spec), **changes)


def test_a_fresh_image_is_fetched_anew() -> None:
    assert container(pod(job()))["imagePullPolicy"] == "IfNotPresent"
    assert container(pod(job(update=True)))["imagePullPolicy"] == "Always"
    assert container(pod(job()))["image"] == IMAGE


def test_a_profile_says_itself_how_long_a_node_may_be_away() -> None:
    taint = "node.kubernetes.io/unreachable"
    own = {"key": taint, "operator": "Exists", "effect": "NoExecute", "toleration_seconds": 7}
    found = pod(job(), kubernetes={"tolerations": [own]})["spec"]["tolerations"]
    assert {one["key"].rpartition("/")[2]: one["tolerationSeconds"] for one in found} == {
        "unreachable": 7,
        "not-ready": 90,
    }


def test_private_addresses_are_closed_but_for_those_that_are_opened() -> None:
    egress = objects.policy(job().record, AROUND, volume=None)["spec"]["egress"]
    blocks = [peer["ipBlock"] for rule in egress for peer in rule["to"] if "ipBlock" in peer and "ports" not in rule]
    assert {"cidr": "10.9.8.7/32"} in blocks
    [v4] = [block for block in blocks if block["cidr"] == "0.0.0.0/0"]
    assert {"10.0.0.0/8", *METADATA, "192.0.2.0/24"} <= set(v4["except"])
    [v6] = [block for block in blocks if block["cidr"] == "::/0"]
    # As a cluster without IPv4 reaches them: 10.0.0.0/8, all of link-local, Azure's, and what is closed by a setting.
    nat64 = {"64:ff9b::a00:0/104", "64:ff9b::a9fe:0/112", "64:ff9b::a83f:8110/128", "64:ff9b::c000:200/120"}
    assert {"fc00::/7", *nat64} <= set(v6["except"])
    assert "64:ff9b::/96" not in v6["except"], "the way to the internet"


@pytest.mark.parametrize(
    ("closed", "left"),
    [(("0.0.0.0/0",), {"::/0"}), (("::/0",), {"0.0.0.0/0"}), (("0.0.0.0/0", "::/0"), set())],
)
def test_all_the_internet_can_be_closed(closed: tuple[str, ...], left: set[str]) -> None:
    made = objects.policy(job().record, objects.Around("mlhub", 8002, closed_to=closed), volume=None)
    validate(made, VERSION, strict=True)
    rules = made["spec"]["egress"]
    assert all(rule["to"] for rule in rules), "a rule that names nothing opens everything"
    blocks = [peer["ipBlock"] for rule in rules for peer in rule["to"] if "ipBlock" in peer and "ports" not in rule]
    assert {block["cidr"] for block in blocks} == left
    assert not {"0.0.0.0/0", "::/0"} & {network for block in blocks for network in block["except"]}


def test_names_are_asked_for_wherever_a_cluster_has_its_dns_and_nothing_else_is_there() -> None:
    egress = objects.policy(job().record, AROUND, volume=None)["spec"]["egress"]
    rules = [rule for rule in egress if {"protocol": "UDP", "port": 53} in rule.get("ports", ())]
    [(pods, *addresses)] = [rule["to"] for rule in rules]
    assert pods["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "kube-system"}
    assert [peer["ipBlock"]["cidr"] for peer in addresses] == ["169.254.20.10/32", "169.254.169.254/32"]
    everywhere = {port["port"] for rule in egress for port in rule.get("ports", ()) if rule["to"] == [openshift()]}
    assert everywhere == {5353}
    opened = [rule["to"] for rule in egress if "ports" not in rule]
    assert "169.254.169.254" not in str(opened)


def openshift() -> dict[str, Any]:
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}},
        "podSelector": {"matchLabels": {"dns.operator.openshift.io/daemonset-dns": "default"}},
    }


def test_a_policy_lets_in_the_proxy_the_gateway_and_the_users_own() -> None:
    [rule] = objects.policy(job().record, AROUND, volume=None)["spec"]["ingress"]
    own, *services = rule["from"]
    assert own == {"podSelector": {"matchLabels": {"mlhub.origin": "test", "mlhub.user": "alice"}}}
    assert [peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for peer in services] == [
        "proxy",
        "ssh-gateway",
    ]
    assert all(
        peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "mlhub"}} for peer in services
    )


@pytest.mark.parametrize("user", ["alice", "a--b", "Ålice@example.org", "-", "x" * 200, "with space", "a.b", "a-b"])
def test_a_label_is_valid_and_of_one_user_only(user: str) -> None:
    others = ["alice2", "a-b-", "Alice", "x" * 199, "withspace"]
    label = marks.label_of(user)
    assert len(label) <= 63
    assert label[0].isalnum()
    assert label[-1].isalnum()
    assert label not in {marks.label_of(other) for other in others}
    assert marks.labels(WorkspaceId(hub="test", user=user))["mlhub.user"] == label
