"""Deletion in two stages, what holds it up, and what goes with its owner."""

import asyncio
from typing import Any

import pytest

from tests.kube.clients import Clients, Obj, claim, mounting, owner, phase, pod, refused, service, state
from tests.support.kube import Script
from tests.support.waiting import until


async def _running(k8s: Clients, **changes: Any) -> Obj:
    """A pod that runs."""
    await k8s.core.create_namespaced_pod(k8s.namespace, pod(**changes))
    await until(lambda: phase(k8s.cluster) == "Running")
    found = k8s.cluster.get("pods", "w")
    assert found is not None
    return found


async def _gone(k8s: Clients, plural: str, name: str = "w") -> None:
    await until(lambda: k8s.cluster.get(plural, name) is None)


async def test_a_running_pod_is_marked_ended_and_then_gone(k8s: Clients) -> None:
    made = await _running(k8s)
    seen: list[tuple[str, bool, bool]] = []
    k8s.cluster.store.listen(
        lambda change: (
            seen.append(
                (
                    change.type,
                    "deletionTimestamp" in change.now.obj["metadata"],
                    "terminated" in change.now.obj["status"]["containerStatuses"][0]["state"],
                )
            )
            if change.now.uid == made["metadata"]["uid"]
            else None
        )
    )
    answer = await k8s.core.delete_namespaced_pod("w", k8s.namespace)
    await _gone(k8s, "pods")

    assert answer.kind == "Pod"
    assert answer.metadata.deletion_grace_period_seconds == 5
    assert next(one for one in seen if one[1]) == ("MODIFIED", True, False)
    assert ("MODIFIED", True, True) in seen
    assert seen[-1] == ("DELETED", True, True)


async def test_a_deaf_program_is_killed_after_its_grace(k8s: Clients) -> None:
    await _running(k8s, container={"command": ["sh", "-c", "trap '' TERM; sleep 60 & wait; sleep 60"]})
    # The shell has to have come so far as to be deaf.
    await asyncio.sleep(0.5)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await k8s.core.delete_namespaced_pod("w", k8s.namespace, grace_period_seconds=1)
    await until(lambda: "terminated" in state(k8s.cluster))
    ended = state(k8s.cluster)["terminated"]

    assert ended["exitCode"] == 137
    assert loop.time() - began >= 1
    await _gone(k8s, "pods")


async def test_without_grace_the_object_goes_before_the_program(k8s: Clients) -> None:
    await _running(k8s)
    life = k8s.cluster.kubelet.life("w")
    assert life is not None
    running = life.running
    assert running is not None
    await k8s.core.delete_namespaced_pod("w", k8s.namespace, grace_period_seconds=0)

    assert k8s.cluster.get("pods", "w") is None
    waiting = asyncio.create_task(running.wait())
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await asyncio.wait_for(waiting, 20)


async def test_a_pod_that_never_ran_goes_at_once(k8s: Clients) -> None:
    k8s.cluster.kubelet.script("w", Script(unschedulable="no room"))
    await k8s.core.create_namespaced_pod(k8s.namespace, pod())
    await k8s.core.delete_namespaced_pod("w", k8s.namespace)

    assert k8s.cluster.get("pods", "w") is None


async def test_another_one_is_not_deleted_in_its_place(k8s: Clients) -> None:
    made = await _running(k8s)
    uid = made["metadata"]["uid"]
    wrong = {"preconditions": {"uid": "0000"}}
    status = await refused(k8s.core.delete_namespaced_pod("w", k8s.namespace, body=wrong), 409, "Conflict")

    assert "the UID in the precondition (0000) does not match the UID in record" in status["message"]
    await k8s.core.delete_namespaced_pod("w", k8s.namespace, body={"preconditions": {"uid": uid}})
    taken = await refused(k8s.core.create_namespaced_pod(k8s.namespace, pod()), 409, "AlreadyExists")
    assert taken["message"] == 'object is being deleted: pods "w" already exists'
    await _gone(k8s, "pods")
    await refused(k8s.core.delete_namespaced_pod("w", k8s.namespace), 404, "NotFound")


async def test_a_finalizer_holds_it_until_it_is_taken_away(k8s: Clients) -> None:
    await _running(k8s, finalizers=["mlhub.test/held"])
    await k8s.core.delete_namespaced_pod("w", k8s.namespace)
    await until(lambda: phase(k8s.cluster) in {"Failed", "Succeeded"})
    await asyncio.sleep(0.2)
    await k8s.core.delete_namespaced_pod("w", k8s.namespace, grace_period_seconds=0)
    held = k8s.cluster.get("pods", "w")

    assert held is not None
    assert "deletionTimestamp" in held["metadata"]
    free = {"metadata": {"finalizers": None}}
    await k8s.core.patch_namespaced_pod("w", k8s.namespace, free, _content_type="application/merge-patch+json")
    assert k8s.cluster.get("pods", "w") is None


async def test_a_claim_stays_while_a_pod_mounts_it(k8s: Clients) -> None:
    ns = k8s.namespace
    await k8s.core.create_namespaced_persistent_volume_claim(ns, claim())
    await _running(k8s, **mounting("w"))
    await k8s.core.delete_namespaced_persistent_volume_claim("w", ns)
    await asyncio.sleep(0.3)
    held = k8s.cluster.get("persistentvolumeclaims", "w")
    assert held is not None
    assert held["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]

    await k8s.core.create_namespaced_pod(ns, pod("second", **mounting("w")))
    await until(lambda: "conditions" in (k8s.cluster.get("pods", "second") or {})["status"])
    waiting = (k8s.cluster.get("pods", "second") or {})["status"]["conditions"][0]
    assert 'persistentvolumeclaim "w" is being deleted' in waiting["message"]
    await k8s.core.delete_namespaced_pod("w", ns)
    await _gone(k8s, "persistentvolumeclaims")


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
async def test_a_service_takes_its_pod_with_it(k8s: Clients, policy: str) -> None:
    ns = k8s.namespace
    await k8s.core.create_namespaced_service(ns, service())
    owned = owner(k8s.cluster.get("services", "w") or {}, "Service")
    await _running(k8s, ownerReferences=owned)
    await k8s.core.delete_namespaced_service("w", ns, propagation_policy=policy)
    await _gone(k8s, "services")

    assert k8s.cluster.get("pods", "w") is not None
    await _gone(k8s, "pods")


async def test_a_claim_and_the_pod_that_it_owns_wait_for_each_other(k8s: Clients) -> None:
    ns = k8s.namespace
    await k8s.core.create_namespaced_persistent_volume_claim(ns, claim())
    owned = owner(k8s.cluster.get("persistentvolumeclaims", "w") or {}, "PersistentVolumeClaim")
    await _running(k8s, ownerReferences=owned, **mounting("w"))
    await k8s.core.delete_namespaced_persistent_volume_claim("w", ns, propagation_policy="Background")
    await asyncio.sleep(0.5)
    still = k8s.cluster.get("pods", "w")
    assert still is not None
    assert "deletionTimestamp" not in still["metadata"]

    await k8s.core.delete_namespaced_pod("w", ns)
    await _gone(k8s, "persistentvolumeclaims")


async def test_but_not_in_the_foreground_where_the_pod_blocks(k8s: Clients) -> None:
    ns = k8s.namespace
    await k8s.core.create_namespaced_persistent_volume_claim(ns, claim())
    held = k8s.cluster.get("persistentvolumeclaims", "w") or {}
    owned = owner(held, "PersistentVolumeClaim", blockOwnerDeletion=True)
    await _running(k8s, ownerReferences=owned, **mounting("w"))
    await k8s.core.delete_namespaced_persistent_volume_claim("w", ns, propagation_policy="Foreground")

    await _gone(k8s, "pods")
    await _gone(k8s, "persistentvolumeclaims")


async def test_a_pod_that_is_stopped_takes_its_service_with_it(k8s: Clients) -> None:
    made = await _running(k8s)
    await k8s.core.create_namespaced_service(k8s.namespace, service(ownerReferences=owner(made, "Pod")))
    await asyncio.sleep(0.3)
    assert k8s.cluster.get("services", "w") is not None
    await k8s.core.delete_namespaced_pod("w", k8s.namespace)

    await _gone(k8s, "services")


@pytest.mark.parametrize("wrong", [{"uid": "0000"}, {"name": "other"}, {"kind": "Pod"}])
async def test_an_owner_that_is_not_there_takes_the_child_at_once(k8s: Clients, wrong: Obj) -> None:
    ns = k8s.namespace
    await k8s.core.create_namespaced_service(ns, service("o"))
    owned = owner(k8s.cluster.get("services", "o") or {}, "Service")
    await k8s.core.create_namespaced_service(ns, service(ownerReferences=[{**owned[0], **wrong}]))

    await _gone(k8s, "services")
    assert k8s.cluster.get("services", "o") is not None


async def test_orphans_stay(k8s: Clients) -> None:
    ns = k8s.namespace
    await k8s.core.create_namespaced_service(ns, service("o"))
    owned = owner(k8s.cluster.get("services", "o") or {}, "Service")
    await k8s.core.create_namespaced_service(ns, service(ownerReferences=owned))
    await k8s.core.delete_namespaced_service("o", ns, propagation_policy="Orphan")
    await asyncio.sleep(0.3)

    assert "ownerReferences" not in (k8s.cluster.get("services", "w") or {})["metadata"]


async def test_many_go_by_a_selector(k8s: Clients) -> None:
    for name, labels in (("a", {"x": "1"}), ("b", {"x": "1"}), ("c", {})):
        await k8s.core.create_namespaced_service(k8s.namespace, service(name, labels=labels))
    await k8s.core.delete_collection_namespaced_service(k8s.namespace, label_selector="x=1")

    assert [one["metadata"]["name"] for one in k8s.cluster.objects("services")] == ["c"]
    assert k8s.cluster.writes["deletecollection", "services"] == 1


async def test_a_namespace_goes_with_all_that_is_in_it(k8s: Clients) -> None:
    await _running(k8s)
    await k8s.core.delete_namespace(k8s.namespace)

    assert k8s.cluster.objects("pods") == []
    await refused(k8s.core.create_namespaced_pod(k8s.namespace, pod()), 404, "NotFound")
