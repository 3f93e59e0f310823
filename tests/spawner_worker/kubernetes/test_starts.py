"""Starts that wait, and starts that fail: what people are told, and that each is told apart."""

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

import pytest

from mlhub_shared.contracts.workspace import Reason
from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends.base import BackendError
from tests.spawner_worker.kubernetes.conftest import Stand
from tests.support.kube import NO_ANSWER, NOT_FOUND, UNAUTHORIZED, Script
from tests.support.kube.errors import ApiError
from tests.support.kube.faults import of
from tests.support.kube_backend import IMAGE, profile
from tests.support.makers import NEWEST
from tests.support.waiting import until

ALICE = "ws-alice-test"
SHORT = timedelta(seconds=2)
SCC = "[provider restricted-v2: .spec.securityContext.fsGroup: Invalid value: []int64{100}: 100 is not allowed]"
GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


async def fails(stand: Stand, script: Script, **settings: Any) -> BackendError:
    """What a start with this script comes to."""
    stand.cluster.kubelet.script(ALICE, script)
    async with stand.backend(**settings) as backend:
        with pytest.raises(BackendError) as error:
            await asyncio.wait_for(stand.run(backend, stand.job()), 30)
        await backend.stop(ALICE, grace=timedelta(0), up_to=NEWEST)
        await backend.erase(ALICE, up_to=NEWEST)
    await until(lambda: not stand.left())
    return error.value


async def test_a_start_waits_for_room_and_says_what_is_missing(stand: Stand) -> None:
    stand.cluster.kubelet.script(ALICE, Script(unschedulable=GPU))
    async with stand.backend() as backend:
        starting = asyncio.ensure_future(stand.run(backend, stand.job(gpus="count:2")))
        await until(lambda: stand.told("3 Insufficient nvidia.com/gpu"))
        assert not starting.done()
        stand.cluster.kubelet.room(**{"nvidia.com/gpu": 2})
        stand.cluster.kubelet.release(ALICE)
        assert (await asyncio.wait_for(starting, 20)).generation == 1


async def test_a_cluster_without_room_is_the_reason(stand: Stand) -> None:
    error = await fails(stand, Script(unschedulable=GPU), prepare_timeout=SHORT)
    assert error.reason is Reason.NO_ROOM
    assert GPU in str(error)


async def test_a_volume_that_can_not_be_made_is_told_with_its_cause(stand: Stand) -> None:
    stand.cluster.kubelet.binds_volumes = False
    async with stand.backend() as backend:
        starting = asyncio.ensure_future(stand.run(backend, stand.job()))
        await until(lambda: stand.told("Waiting for its volume: 0/1 nodes are available: pod has unbound immediate"))
        no_class = 'storageclass.storage.k8s.io "fast" not found'
        claim = stand.cluster.store.get("persistentvolumeclaims", stand.cluster.namespace, ALICE)
        assert claim is not None
        stand.cluster.events.record(claim, "ProvisioningFailed", no_class, source="pv-controller", warning=True)
        await until(lambda: stand.told(f"Its volume can't be made yet: {no_class}"))
        assert not stand.told("Waiting for room")
        stand.cluster.kubelet.binds_volumes = True
        stand.cluster.kubelet.nudge()
        await asyncio.wait_for(starting, 20)


async def test_a_volume_that_is_never_made_is_no_want_of_room(stand: Stand) -> None:
    stand.cluster.kubelet.binds_volumes = False
    error = await fails(stand, Script(), prepare_timeout=SHORT)
    assert error.reason is Reason.TIMEOUT
    assert "unbound immediate PersistentVolumeClaims" in str(error)


@pytest.mark.parametrize(("refusal", "words"), [(NOT_FOUND, "not found"), (UNAUTHORIZED, "401 Unauthorized")])
async def test_an_image_that_nobody_gives_fails_soon(stand: Stand, refusal: str, words: str) -> None:
    error = await fails(stand, Script(pull_error=refusal))
    assert error.reason is Reason.IMAGE
    assert IMAGE in str(error)
    assert words in str(error)


async def test_a_registry_that_does_not_answer_is_waited_for(stand: Stand) -> None:
    stand.cluster.kubelet.script(ALICE, Script(pull_error=NO_ANSWER))
    async with stand.backend() as backend:
        starting = asyncio.ensure_future(stand.run(backend, stand.job()))
        await until(lambda: stand.told("i/o timeout"))
        await asyncio.sleep(2)
        assert not starting.done()
        stand.cluster.kubelet.release(ALICE)
        await asyncio.wait_for(starting, 20)


def pulls(stand: Stand) -> int:
    """How often an image was tried."""
    return sum(event.get("count") or 1 for event in stand.cluster.objects("events") if event["reason"] == "Pulling")


@pytest.mark.parametrize("is_vague", [False, True], ids=["kubelet", "older-kubelet"])
async def test_one_cause_is_told_once_however_often_it_is_tried(stand: Stand, is_vague: bool) -> None:
    stand.cluster.kubelet.script(ALICE, Script(pull_error=NO_ANSWER, pull_says_less=is_vague))
    async with stand.backend() as backend:
        starting = asyncio.ensure_future(stand.run(backend, stand.job()))
        await until(lambda: pulls(stand) >= 4)
        [said] = [message for _, message in stand.said if "can't be had" in message]
        assert said.endswith("i/o timeout")
        stand.cluster.kubelet.release(ALICE)
        await asyncio.wait_for(starting, 20)


@pytest.mark.parametrize(
    ("script", "reason", "words"),
    [
        (Script(invalid_image=True), Reason.IMAGE, "its name is not valid"),
        (Script(config_error='secret "mine" not found'), Reason.BACKEND, 'secret "mine" not found'),
        (Script(run_error='exec: "jupyter": executable file not found'), Reason.BACKEND, "executable file not found"),
    ],
)
async def test_what_can_never_run_fails_at_once(stand: Stand, script: Script, reason: Reason, words: str) -> None:
    error = await fails(stand, script)
    assert error.reason is reason
    assert words in str(error)


async def test_an_image_that_runs_as_root_is_named_with_the_remedy(stand: Stand) -> None:
    stand.cluster.kubelet.root_images.add(IMAGE)
    error = await fails(stand, Script())
    assert IMAGE in str(error)
    assert "run_as_non_root" in str(error)


async def test_progress_is_told_by_the_clusters_events(stand: Stand) -> None:
    stand.cluster.kubelet.script(ALICE, Script(pull=1.0, mount_error="no route to host"))
    async with stand.backend() as backend:
        starting = asyncio.ensure_future(stand.run(backend, stand.job()))
        await until(lambda: stand.told("no route to host"))
        stand.cluster.kubelet.release(ALICE)
        await until(lambda: stand.told(f"fetches {IMAGE}"))
        await asyncio.wait_for(starting, 20)


async def test_a_death_on_the_way_up_is_a_death(stand: Stand) -> None:
    stand.cluster.kubelet.script(ALICE, Script(exit_code=3, last_words="no module named jupyter\n"))
    async with stand.backend() as backend:
        end = await stand.ends(backend, stand.job())
        assert end.code == 3
        assert "no module named jupyter" in end.log_tail


async def test_a_full_quota_is_waited_for(stand: Stand) -> None:
    stand.cluster.quota(pods="1")
    async with stand.backend() as backend:
        await stand.run(backend, stand.job("bob"))
        starting = asyncio.ensure_future(stand.run(backend, stand.job()))
        await until(lambda: stand.told("quota small"))
        assert stand.told("pods=1")
        await backend.stop("ws-bob-test", grace=timedelta(0), up_to=NEWEST)
        await asyncio.wait_for(starting, 20)


async def test_a_quota_that_stays_full_is_the_reason(stand: Stand) -> None:
    stand.cluster.quota(pods="0")
    error = await fails(stand, Script(), prepare_timeout=SHORT)
    assert error.reason is Reason.NO_ROOM
    assert "quota small" in str(error)


async def test_a_full_quota_does_not_hide_what_runs_already(stand: Stand) -> None:
    stand.cluster.quota(pods="1")
    async with stand.backend() as backend:
        started = await stand.run(backend, stand.job())
    async with stand.backend() as other:
        assert await stand.run(other, stand.job()) == started


async def test_a_namespaces_own_limits_are_told(stand: Stand) -> None:
    stand.cluster.limit_range(max={"memory": "128Mi"})
    async with stand.backend() as backend:
        with pytest.raises(BackendError, match="maximum memory usage per Container is 128Mi"):
            await stand.run(backend, stand.job(mem_limit=2**30))


async def test_a_restricted_namespace_takes_workspaces_as_they_are(stand: Stand) -> None:
    stand.cluster.enforce("restricted")
    async with stand.backend() as backend:
        await stand.run(backend, stand.job(shm_size=2**26, mem_limit=2**30, cpu_limit=0.5))


async def test_what_a_restricted_namespace_does_not_take_is_told(stand: Stand) -> None:
    stand.cluster.enforce("restricted")
    runs = profile(privilege_escalation=True)
    async with stand.backend(profiles=(runs,)) as backend:
        with pytest.raises(BackendError, match="allowPrivilegeEscalation"):
            await stand.run(backend, stand.job())


async def test_what_openshift_does_not_admit_is_told_at_once(stand: Stand) -> None:
    why = f'pods "{ALICE}" is forbidden: unable to validate against any security context constraint: {SCC}'
    stand.cluster.faults.answer(ApiError(403, "Forbidden", why), times=1000, matches=of("create", "pods"))
    async with stand.backend() as backend:
        with pytest.raises(BackendError, match=r"does not admit it: .*100 is not allowed"):
            await stand.run(backend, stand.job())


async def test_a_missing_namespace_is_named_and_waited_for(stand: Stand) -> None:
    async with stand.backend() as backend:
        stand.cluster.remove_namespace()
        with pytest.raises(Temporary, match=f"namespace {stand.cluster.namespace} .* does not exist"):
            await stand.run(backend, stand.job())
        stand.cluster.add_namespace(stand.cluster.namespace)
        await stand.run(backend, stand.job())


async def test_an_api_that_goes_away_in_mid_start_is_waited_for(stand: Stand) -> None:
    stand.cluster.kubelet.script(ALICE, Script(pull=2.0))
    async with stand.backend() as backend:
        starting = asyncio.ensure_future(stand.run(backend, stand.job()))
        await until(lambda: stand.told(f"fetches {IMAGE}"))
        await stand.cluster.faults.away(4, forbidden=2)
        assert (await asyncio.wait_for(starting, 20)).generation == 1
    assert stand.cluster.writes["create", "pods"] == 1


@pytest.mark.parametrize("after", range(5))
async def test_a_start_repeated_after_an_outage_starts_nothing_twice(stand: Stand, after: int) -> None:
    async with stand.backend() as backend:
        if after:
            # The calls before go through.
            leave_after(stand, after)
        else:
            await stand.cluster.faults.leave()
        with contextlib.suppress(Temporary):
            await stand.run(backend, stand.job())
        if after == 0:
            await stand.cluster.faults.come_back()
        else:
            stand.cluster.faults.clear()
        await asyncio.sleep(0.5)
        await stand.run(backend, stand.job())
        assert len(stand.cluster.objects("pods")) == 1
        [_] = [
            call
            for call in stand.cluster.requests
            if (call.verb, call.resource, call.status) == ("create", "pods", 201)
        ]


def leave_after(stand: Stand, count: int) -> None:
    """The API breaks every write after so many."""
    seen = 0

    def matches(verb: str, _: str) -> bool:
        nonlocal seen
        seen += verb in {"create", "patch"}
        return seen > count

    stand.cluster.faults.broken(times=1000, matches=matches)


async def test_a_busy_api_is_asked_again(stand: Stand) -> None:
    async with stand.backend() as backend:
        stand.cluster.faults.busy(3, matches=lambda verb, resource: (verb, resource) == ("create", "pods"))
        with pytest.raises(Temporary) as error:
            await stand.run(backend, stand.job())
        assert error.value.delay == timedelta(seconds=3)
        await stand.run(backend, stand.job())


async def test_a_pod_removed_before_it_runs_is_made_again(stand: Stand) -> None:
    stand.cluster.kubelet.script(ALICE, Script(unschedulable=GPU))
    async with stand.backend() as backend:
        starting = asyncio.ensure_future(stand.run(backend, stand.job()))
        await until(lambda: stand.told("Insufficient"))
        stand.cluster.kubelet.script(ALICE, Script())
        stand.cluster.delete("pods", ALICE)
        with pytest.raises(Temporary, match="removed"):
            await asyncio.wait_for(starting, 20)
        await stand.run(backend, stand.job())


async def test_a_name_that_a_lost_node_holds_is_told_of(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job())
        stand.cluster.kubelet.lose_node()
        await asyncio.wait_for(backend.trouble(ALICE, ""), 20)
        with pytest.raises(Temporary, match="does not answer"):
            await backend.stop(ALICE, grace=timedelta(0), up_to=NEWEST)
        with pytest.raises(Temporary, match="does not answer"):
            await stand.run(backend, stand.job(generation=2))
        stand.cluster.kubelet.bring_back_node()
        assert (await asyncio.wait_for(stand.run(backend, stand.job(generation=2)), 20)).generation == 2


async def test_a_volume_that_does_not_go_is_told_of(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job())
        stand.cluster.create("pods", user_of(ALICE))
        await backend.stop(ALICE, grace=timedelta(0), up_to=NEWEST)
        with pytest.raises(Temporary, match="a pod still uses it"):
            await backend.erase(ALICE, up_to=NEWEST)
        with pytest.raises(Temporary, match="a pod still uses it"):
            await stand.run(backend, stand.job(generation=2))
        stand.cluster.delete("pods", "other")
        await backend.erase(ALICE, up_to=NEWEST)
        await stand.run(backend, stand.job(generation=2))


def user_of(claim: str) -> dict[str, Any]:
    """A stranger's pod that mounts this volume."""
    volume = {"name": "it", "persistentVolumeClaim": {"claimName": claim}}
    container = {"name": "main", "image": "theirs"}
    return {"metadata": {"name": "other"}, "spec": {"containers": [container], "volumes": [volume]}}
