"""What a pod's status is taken for."""

from dataclasses import replace
from typing import Any

import pytest

from mlhub_shared.contracts.workspace import Phase, WorkspaceSecrets
from mlhub_spawner_worker.backends.base import Job
from mlhub_spawner_worker.backends.kubernetes import body, sightings
from mlhub_spawner_worker.backends.kubernetes.notes import Notes
from mlhub_spawner_worker.backends.kubernetes.sightings import Impossible, Pod, Up, Waiting
from tests.support.kube_backend import profile
from tests.support.makers import record

RUNNING: dict[str, Any] = {"running": {}}
CREATING: dict[str, Any] = {"waiting": {"reason": "ContainerCreating"}}
INITIALIZING: dict[str, Any] = {"waiting": {"reason": "PodInitializing"}}
ENDED: dict[str, Any] = {"terminated": {"exitCode": 1, "reason": "Error"}}
BACKING_OFF: dict[str, Any] = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
NO_IMAGE: dict[str, Any] = {"waiting": {"reason": "InvalidImageName"}}


def seen(own: dict[str, Any], init: dict[str, Any] | None = None, *, keeps: bool = True, ready: Any = ()) -> Pod:
    """A pod with this state, and that of one init container, which stays beside it or not."""
    inits = [{"name": "sync", "image": "git-sync", **({"restartPolicy": "Always"} if keeps else {})}]
    wanted = profile(kubernetes={"init_containers": inits} if init else {})
    made = body.pod(body.Plan(Job(record(phase=Phase.PREPARING), WorkspaceSecrets(generation=1)), wanted))
    made["metadata"] |= {"uid": "1", "resourceVersion": "1"}
    made["spec"]["nodeName"] = "node-1"
    made["status"] = {
        "phase": "Running" if "running" in own else "Pending",
        "conditions": [{"type": "Ready", **dict(ready)}],
        "containerStatuses": [{"name": "workspace", "image": "theirs", "state": own}],
        "initContainerStatuses": [{"name": "sync", "image": "git-sync", "state": init}] if init else [],
    }
    pod = sightings.seen(made)
    assert pod is not None
    return pod


@pytest.mark.parametrize("state", [ENDED, BACKING_OFF, NO_IMAGE], ids=["ended", "waits", "no-image"])
def test_a_container_beside_it_that_ends_ends_no_workspace(state: dict[str, Any]) -> None:
    assert seen(RUNNING, state).sighting == Up()


@pytest.mark.parametrize("state", [ENDED, BACKING_OFF])
def test_a_container_beside_it_is_waited_for_as_it_is_started_again(state: dict[str, Any]) -> None:
    assert isinstance(seen(INITIALIZING, state).sighting, Waiting)
    assert isinstance(seen(INITIALIZING, state, keeps=False).sighting, Impossible)


def test_what_holds_the_workspace_back_is_told_before_what_ails_a_container_beside_it() -> None:
    assert seen(NO_IMAGE, BACKING_OFF).sighting == seen(NO_IMAGE).sighting
    told = seen(INITIALIZING, BACKING_OFF).sighting
    assert isinstance(told, Waiting)
    assert told.message == "Its init container sync does not stay up: back-off 10s"
    assert seen(CREATING, RUNNING).sighting == seen(CREATING).sighting


@pytest.mark.parametrize(
    ("condition", "is_silent"),
    [
        ({"status": "True"}, False),
        ({"status": "False"}, True),
        ({"status": "Unknown"}, True),
        ({"status": "False", "reason": "NodeStatusUnknown"}, True),
        ({"status": "False", "reason": "ContainersNotReady"}, False),
        ({"status": "False", "reason": "ReadinessGatesNotReady"}, False),
    ],
)
def test_a_node_is_blamed_only_if_it_is_silent(condition: dict[str, str], is_silent: bool) -> None:
    assert seen(RUNNING, ready=condition).trouble.startswith("Node node-1 does not answer") is is_silent


def test_a_volumes_trouble_is_told_until_it_is_made_and_only_while_it_is_waited_for() -> None:
    def heard(reason: str) -> None:
        volume = {"kind": "PersistentVolumeClaim", "name": unplaced.name, "uid": "2"}
        assert notes.heard({"involvedObject": volume, "reason": reason, "message": "no class"}) == unplaced.name

    notes, unplaced = Notes(), replace(seen(CREATING), node="")
    for_node = Waiting("Waiting for a node", sightings.FOR_NODE)
    for_room = Waiting("Waiting for room", sightings.FOR_ROOM)
    heard("ProvisioningFailed")
    assert notes.told(unplaced, for_node).message == "Its volume can't be made yet: no class"
    assert notes.told(unplaced, for_room) == for_room
    heard("ProvisioningSucceeded")
    assert notes.told(unplaced, for_node) == for_node
