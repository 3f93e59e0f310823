"""Who may reach whom by the network policies: all that the services need, and no more."""

from functools import cache

import pytest

from mlhub_spawner_worker.backends.kubernetes.objects import Around, policy
from tests.support.makers import record
from tests.support.manifests.network import STRANGER, Pod, may_reach, pod_of
from tests.support.manifests.objects import Objs, find, rendered, workload

SPACE = "mlhub-workspaces"
PRETENDER = Pod("elsewhere", {"app.kubernetes.io/name": "proxy", "app.kubernetes.io/component": "workspace"})

NEEDED = [
    *((service, "nats", 4222) for service in ("hub", "spawner-worker", "cleanup", "ssh-gateway", "proxy")),
    ("nats", "nats", 6222),
    ("proxy", "hub", 8081),
    ("cleanup", "hub", 8081),
    ("ssh-gateway", "hub", 8081),
    ("proxy", "cleanup", 8084),
    ("hub", "cleanup", 8084),
    ("hub", "proxy", 8003),
    ("spawner-worker", "proxy", 8003),
    ("ssh-gateway", "spawner-worker", 2200),
    ("proxy", "spawner-worker", 32768),
    ("proxy", "spawner-worker", 60999),
    ("proxy", "ssh-gateway", 2223),
    ("stranger", "proxy", 8080),
    ("stranger", "ssh-gateway", 2222),
]
PORTS = {
    "nats": (4222, 6222, 8222),
    "hub": (8081,),
    "spawner-worker": (2200, 8084, 32767, 32768, 60999, 61000),
    "cleanup": (8084,),
    "ssh-gateway": (2222, 2223, 8084),
    "proxy": (8002, 8003, 8080, 8084),
}
OPEN_TO_ALL = {("proxy", 8080), ("ssh-gateway", 2222)}


@cache
def objects() -> Objs:
    return rendered("production")


def pod(name: str) -> Pod:
    others = {"stranger": STRANGER, "pretender": PRETENDER}
    return others.get(name) or pod_of(workload(objects(), name))


def test_the_services_reach_each_other_where_they_must_and_nowhere_else() -> None:
    tried = {
        (source, target, port)
        for source in (*PORTS, "stranger", "pretender")
        for target, ports in PORTS.items()
        for port in ports
    }
    passed = {(a, b, port) for a, b, port in tried if may_reach(objects(), pod(a), pod(b), port)}
    open_ones = {(a, b, port) for a, b, port in tried if (b, port) in OPEN_TO_ALL}
    assert passed == set(NEEDED) | open_ones


def made(*workspaces: tuple[str, str]) -> tuple[Objs, list[Pod]]:
    """With what the worker makes beside each of these users' workspaces; and their pods."""
    around = Around(services_namespace="mlhub", api_port=8002)
    policies = [policy(record(user, server), around, volume=None) for user, server in workspaces]
    for found in policies:
        found["metadata"]["namespace"] = SPACE
    return [*objects(), *policies], [Pod(SPACE, found["metadata"]["labels"]) for found in policies]


def test_a_workspace_reaches_the_hubs_api_and_no_other_service() -> None:
    found, (pod_of_alice,) = made(("alice", ""))
    tried = {(target, port) for target, ports in PORTS.items() for port in ports}
    passed = {(target, port) for target, port in tried if may_reach(found, pod_of_alice, pod(target), port)}
    assert passed == {("proxy", 8002)}


def test_a_workspace_is_entered_by_the_proxies_the_gateways_and_its_owners_others() -> None:
    found, (first, second, others) = made(("alice", ""), ("alice", "two"), ("bob", ""))
    entering = {name for name in (*PORTS, "stranger", "pretender") if may_reach(found, pod(name), first, 8888)}
    assert entering == {"proxy", "ssh-gateway"}
    assert may_reach(found, second, first, 8888)
    assert not may_reach(found, others, first, 8888)
    assert not may_reach(found, first, others, 8888)


def test_what_else_lies_beside_the_workspaces_gets_nowhere() -> None:
    found, (pod_of_alice,) = made(("alice", ""))
    beside = Pod(SPACE, {"app.kubernetes.io/name": "proxy"})
    for source, target, port in ((beside, pod("proxy"), 8002), (beside, pod_of_alice, 8888), (STRANGER, beside, 80)):
        assert not may_reach(found, source, target, port)


@pytest.mark.parametrize("name", ["default-deny", "hub", "nats", "proxy"])
def test_a_policy_that_is_missing_is_noticed(name: str) -> None:
    left = [obj for obj in objects() if obj is not find(objects(), "NetworkPolicy", name, "mlhub")]
    probes = [(a, b, port) for a in (*PORTS, "stranger") for b, ports in PORTS.items() for port in ports]
    # One alone that is missing opens or shuts something, unless the one for all pods closes it again.
    before = [may_reach(objects(), pod(a), pod(b), port) for a, b, port in probes]
    after = [may_reach(left, pod(a), pod(b), port) for a, b, port in probes]
    assert (before != after) == (name != "default-deny")
    new = Pod("mlhub", {"app.kubernetes.io/name": "new"})
    assert may_reach(left, STRANGER, new, 80) == (name == "default-deny")


def test_the_range_of_the_ways_into_workspaces_is_the_one_that_the_workers_take_ports_from() -> None:
    (sysctl,) = workload(objects(), "spawner-worker").pod["securityContext"]["sysctls"]
    policy = find(objects(), "NetworkPolicy", "spawner-worker")["spec"]
    ranges = [port for rule in policy["ingress"] for port in rule["ports"] if "endPort" in port]
    assert sysctl["name"] == "net.ipv4.ip_local_port_range"
    assert [f"{port['port']} {port['endPort']}" for port in ranges] == [sysctl["value"]]
