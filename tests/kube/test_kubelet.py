"""What pods go through on their node, as their fields and events tell it."""

import asyncio
from datetime import datetime
from typing import Any

import pytest

from tests.kube.clients import Clients, answer_of, claim, condition, mounting, phase, pod, reasons, state
from tests.support.kube import NO_ANSWER, NOT_FOUND, UNAUTHORIZED, Script
from tests.support.waiting import until, until_async


async def _create(k8s: Clients, name: str = "w", script: Script | None = None, **changes: Any) -> None:
    if script is not None:
        k8s.cluster.kubelet.script(name, script)
    await k8s.core.create_namespaced_pod(k8s.namespace, pod(name, **changes))


async def _runs(k8s: Clients, name: str = "w") -> None:
    await until(lambda: "running" in state(k8s.cluster, name))


def _waiting(k8s: Clients) -> str:
    return str(state(k8s.cluster).get("waiting", {}).get("reason", ""))


async def test_a_start_as_it_should_be(k8s: Clients) -> None:
    await _create(k8s)
    await until(lambda: condition(k8s.cluster, "Ready").get("status") == "True")
    address = (k8s.cluster.get("pods", "w") or {})["status"]["podIP"]

    assert reasons(k8s.cluster) == ["Scheduled", "Pulling", "Pulled", "Created", "Started"]
    assert phase(k8s.cluster) == "Running"
    assert address.startswith("127.")
    assert await answer_of(k8s) == 200
    involved = [event["involvedObject"] for event in k8s.cluster.objects("events")]
    assert {one["uid"] for one in involved} == {(k8s.cluster.get("pods", "w") or {})["metadata"]["uid"]}


async def test_two_pods_listen_on_the_same_port(k8s: Clients) -> None:
    for name in ("a", "b"):
        await _create(k8s, name)
    await _runs(k8s, "a")
    await _runs(k8s, "b")

    addresses = {(k8s.cluster.get("pods", name) or {})["status"]["podIP"] for name in ("a", "b")}
    assert len(addresses) == 2


@pytest.mark.parametrize(
    ("room", "changes", "missing"),
    [
        ({}, {"container": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}, "1 Insufficient nvidia.com/gpu"),
        ({"memory": 2.0**30}, {"container": {"resources": {"limits": {"memory": "2Gi"}}}}, "1 Insufficient memory"),
        ({}, {"spec": {"nodeSelector": {"disk": "fast"}}}, "didn't match Pod's node affinity/selector"),
        ({}, mounting("nowhere"), 'persistentvolumeclaim "nowhere" not found'),
    ],
)
async def test_no_room_now(k8s: Clients, room: dict[str, float], changes: dict[str, Any], missing: str) -> None:
    k8s.cluster.kubelet.room(**room)
    await _create(k8s, **changes)
    await until(lambda: condition(k8s.cluster, "PodScheduled").get("status") == "False")
    told = condition(k8s.cluster, "PodScheduled")

    assert told["reason"] == "Unschedulable"
    assert told["message"].startswith("0/1 nodes are available: ")
    assert missing in told["message"]
    (event,) = k8s.cluster.objects("events")
    assert (event["reason"], event["type"], "count" in event) == ("FailedScheduling", "Warning", False)


async def test_room_comes_when_another_ends(k8s: Clients) -> None:
    k8s.cluster.kubelet.room(**{"nvidia.com/gpu": 1})
    gpu = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    await _create(k8s, "first", container=gpu)
    await _runs(k8s, "first")
    await _create(k8s, container=gpu)
    await until(lambda: condition(k8s.cluster, "PodScheduled").get("status") == "False")
    await k8s.core.delete_namespaced_pod("first", k8s.namespace)

    await _runs(k8s)
    assert condition(k8s.cluster, "PodScheduled")["status"] == "True"


async def test_a_claim_may_come_after_its_pod_and_keeps_its_files(k8s: Clients) -> None:
    await _create(k8s, **mounting("w"))
    await until(lambda: condition(k8s.cluster, "PodScheduled").get("status") == "False")
    await k8s.core.create_namespaced_persistent_volume_claim(k8s.namespace, claim())
    await _runs(k8s)
    assert (k8s.cluster.get("persistentvolumeclaims", "w") or {})["status"]["phase"] == "Bound"
    (k8s.cluster.kubelet.home("w") / "note").write_text("kept")

    await k8s.core.delete_namespaced_pod("w", k8s.namespace)
    await until(lambda: k8s.cluster.get("pods", "w") is None)
    await _create(k8s, **mounting("w"))
    await _runs(k8s)
    assert (k8s.cluster.kubelet.home("w") / "note").read_text() == "kept"


async def test_a_claim_that_finds_no_volume(k8s: Clients) -> None:
    k8s.cluster.kubelet.binds_volumes = False
    await k8s.core.create_namespaced_persistent_volume_claim(k8s.namespace, claim())
    await _create(k8s, **mounting("w"))
    await until(lambda: "unbound immediate" in condition(k8s.cluster, "PodScheduled").get("message", ""))

    k8s.cluster.kubelet.binds_volumes = True
    k8s.cluster.kubelet.nudge()
    await _runs(k8s)


@pytest.mark.parametrize(
    ("kind", "text"), [(NOT_FOUND, "not found"), (UNAUTHORIZED, "401 Unauthorized"), (NO_ANSWER, "i/o timeout")]
)
async def test_an_image_that_can_not_be_had(k8s: Clients, kind: str, text: str) -> None:
    seen: set[str] = set()
    k8s.cluster.store.listen(lambda _: seen.add(_waiting(k8s)))
    await _create(k8s, script=Script(pull_error=kind))
    await until(lambda: reasons(k8s.cluster).count("Failed") > 0 and {"ErrImagePull", "ImagePullBackOff"} <= seen)

    assert phase(k8s.cluster) == "Pending"
    assert text in state(k8s.cluster)["waiting"]["message"]
    counts = [event["count"] for event in k8s.cluster.objects("events") if event["reason"] == "Pulling"]
    assert len(counts) == 1
    await until(lambda: _pulls(k8s) > 1)
    k8s.cluster.kubelet.release("w")
    await _runs(k8s)


def _pulls(k8s: Clients) -> int:
    """How often it was tried: a repeat counts up."""
    return next(int(one["count"]) for one in k8s.cluster.objects("events") if one["reason"] == "Pulling")


async def test_a_node_pulls_one_image_at_a_time(k8s: Clients) -> None:
    await _create(k8s, "slow", Script(pull=0.6))
    await until(lambda: "Pulling" in reasons(k8s.cluster))
    await _create(k8s, container={"image": "registry.test/other:1"})
    await until(lambda: reasons(k8s.cluster).count("Pulling") == 2)

    assert "Pulled" not in reasons(k8s.cluster)
    await _runs(k8s)
    messages = [event["message"] for event in k8s.cluster.objects("events") if event["reason"] == "Pulled"]
    assert '"registry.test/lab:1"' in messages[0]
    assert "including waiting" in messages[1]
    await _create(k8s, "third")
    await until(lambda: "already present on machine" in str(k8s.cluster.objects("events")))


@pytest.mark.parametrize(
    ("script", "changes", "reason"),
    [
        (Script(invalid_image=True), {}, "InvalidImageName"),
        (None, {"container": {"imagePullPolicy": "Never"}}, "ErrImageNeverPull"),
        (Script(config_error='secret "x" not found'), {}, "CreateContainerConfigError"),
        (
            None,
            {"container": {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}]}},
            "CreateContainerConfigError",
        ),
    ],
)
async def test_what_keeps_a_container_waiting(
    k8s: Clients, script: Script | None, changes: dict[str, Any], reason: str
) -> None:
    await _create(k8s, script=script, **changes)
    await until(lambda: _waiting(k8s) == reason)

    assert phase(k8s.cluster) == "Pending"
    assert state(k8s.cluster)["waiting"]["message"]


async def test_a_volume_that_can_not_be_mounted(k8s: Clients) -> None:
    await _create(k8s, script=Script(mount_error="connection timed out"))
    await until(lambda: "FailedMount" in reasons(k8s.cluster))

    assert _waiting(k8s) == "ContainerCreating"
    k8s.cluster.kubelet.release("w")
    await _runs(k8s)


async def test_a_command_that_is_not_there(k8s: Clients) -> None:
    seen: set[tuple[str, str]] = set()
    k8s.cluster.store.listen(lambda _: seen.add((phase(k8s.cluster), _waiting(k8s))))
    await _create(k8s, container={"command": ["nowhere"]})
    await until(lambda: phase(k8s.cluster) == "Failed")

    assert ("Running", "RunContainerError") in seen
    ended = state(k8s.cluster)["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert 'exec: "nowhere": executable file not found in $PATH' in ended["message"]


async def test_a_crash_loop_looks_as_if_it_ran(k8s: Clients) -> None:
    k8s.cluster.kubelet.timing.crash_backoff = 0.05
    body = {"spec": {"restartPolicy": "Always"}, "container": {"command": ["sh", "-c", "echo tried; exit 3"]}}
    await _create(k8s, "w", None, **body)
    await until(lambda: _waiting(k8s) == "CrashLoopBackOff")
    status = (k8s.cluster.get("pods", "w") or {})["status"]

    assert status["phase"] == "Running"
    assert status["containerStatuses"][0]["restartCount"] >= 1
    assert status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 3


@pytest.mark.parametrize(
    ("command", "code", "reason", "end"),
    [
        ("exit 0", 0, "Completed", "Succeeded"),
        ("exit 7", 7, "Error", "Failed"),
        ("kill -9 $$$$", 137, "Error", "Failed"),
    ],
)
async def test_the_state_tells_of_an_end_before_the_phase(
    k8s: Clients, command: str, code: int, reason: str, end: str
) -> None:
    phases: list[str] = []
    k8s.cluster.store.listen(
        lambda _: phases.append(phase(k8s.cluster)) if "terminated" in state(k8s.cluster) else None
    )
    await _create(k8s, container={"command": ["sh", "-c", command]})
    await until(lambda: phase(k8s.cluster) == end)

    ended = state(k8s.cluster)["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (code, reason)
    assert phases[0] == "Running"
    assert datetime.fromisoformat(ended["finishedAt"]) >= datetime.fromisoformat(ended["startedAt"])


async def test_what_a_test_does_to_a_container(k8s: Clients) -> None:
    for name in ("coded", "signalled", "hungry"):
        await _create(k8s, name)
        await _runs(k8s, name)
    k8s.cluster.kubelet.kill("coded", 5)
    k8s.cluster.kubelet.kill("signalled", signal=15)
    k8s.cluster.kubelet.kill("hungry", oom=True)
    await until(lambda: all(phase(k8s.cluster, name) == "Failed" for name in ("coded", "signalled", "hungry")))

    ends = [state(k8s.cluster, name)["terminated"] for name in ("coded", "signalled", "hungry")]
    assert [(end["exitCode"], end["reason"]) for end in ends] == [(5, "Error"), (143, "Error"), (137, "OOMKilled")]


async def test_an_evicted_pod(k8s: Clients) -> None:
    await _create(k8s)
    await _runs(k8s)
    k8s.cluster.kubelet.evict("w", "The node was low on resource: memory.")
    await until(lambda: phase(k8s.cluster) == "Failed")
    status = (k8s.cluster.get("pods", "w") or {})["status"]

    assert (status["reason"], status["message"]) == ("Evicted", "The node was low on resource: memory.")
    assert condition(k8s.cluster, "DisruptionTarget")["reason"] == "TerminationByKubelet"


async def test_a_lost_node_comes_back(k8s: Clients) -> None:
    await _create(k8s)
    await until(lambda: condition(k8s.cluster, "Ready").get("status") == "True")
    k8s.cluster.kubelet.lose_node()
    await until(lambda: condition(k8s.cluster, "Ready")["status"] == "False")
    assert phase(k8s.cluster) == "Running"
    (node,) = k8s.cluster.objects("nodes")
    assert node["status"]["conditions"][0]["status"] == "Unknown"

    await k8s.core.delete_namespaced_pod("w", k8s.namespace)
    await asyncio.sleep(0.3)
    assert k8s.cluster.get("pods", "w") is not None
    k8s.cluster.kubelet.bring_back_node()
    await until(lambda: k8s.cluster.get("pods", "w") is None)


async def test_a_pod_that_does_not_tolerate_a_lost_node_is_deleted(k8s: Clients) -> None:
    toleration = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    await _create(k8s, spec={"tolerations": [{**toleration, "tolerationSeconds": 0}]})
    await _runs(k8s)
    k8s.cluster.kubelet.lose_node()
    await until(lambda: condition(k8s.cluster, "DisruptionTarget").get("reason") == "DeletionByTaintManager")

    assert "deletionTimestamp" in (k8s.cluster.get("pods", "w") or {})["metadata"]
    assert phase(k8s.cluster) == "Running"


async def test_ready_may_come_late(k8s: Clients) -> None:
    await _create(k8s, script=Script(ready_after=60))
    await _runs(k8s)
    assert condition(k8s.cluster, "Ready")["status"] == "False"
    k8s.cluster.kubelet.release("w")
    await until(lambda: condition(k8s.cluster, "Ready")["status"] == "True")


async def test_init_containers_come_first(k8s: Clients) -> None:
    init = {"name": "init", "image": "registry.test/init:1", "command": ["sh", "-c", 'echo made > "$HOME/by-init"']}
    await _create(k8s, spec={"initContainers": [init]})
    await _runs(k8s)
    assert (k8s.cluster.kubelet.home("w") / "by-init").read_text() == "made\n"

    await _create(k8s, "failing", spec={"initContainers": [{**init, "command": ["false"]}]})
    await until(lambda: phase(k8s.cluster, "failing") == "Failed")


async def test_the_environment_of_a_program(k8s: Clients) -> None:
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)2 $$(A) $(NONE)"},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    await _create(k8s, container={"env": env, "command": ["sh", "-c", 'echo "$B|$IP|$0"; sleep 60', "$(A)"]})
    await _runs(k8s)
    address = (k8s.cluster.get("pods", "w") or {})["status"]["podIP"]

    async def is_told() -> bool:
        log = await k8s.core.read_namespaced_pod_log("w", k8s.namespace)
        return bool(log == f"12 $(A) $(NONE)|{address}|1\n")

    await until_async(is_told)
