"""The four kinds of patches, and what can't be changed."""

from typing import Any

from tests.kube.clients import Clients, Obj, claim, pod, refused, service
from tests.support.kube import Script

_APPLY = "application/apply-patch+yaml"


async def _apply(k8s: Clients, body: Obj, *, manager: str = "spawner-worker", **options: Any) -> Any:
    options = {"force": True, **options}
    return await k8s.core.patch_namespaced_service(
        "w", k8s.namespace, body, field_manager=manager, _content_type=_APPLY, **options
    )


async def test_an_apply_creates_repeats_without_effect_and_takes_back(k8s: Clients) -> None:
    first = await _apply(k8s, service(labels={"a": "1", "b": "2"}))
    again = await _apply(k8s, service(labels={"a": "1", "b": "2"}))
    await k8s.core.patch_namespaced_service("w", k8s.namespace, {"metadata": {"labels": {"theirs": "3"}}})
    less = await _apply(k8s, service(labels={"a": "1"}))

    assert first.metadata.resource_version == again.metadata.resource_version
    assert less.metadata.labels == {"a": "1", "theirs": "3"}
    assert less.metadata.uid == first.metadata.uid


async def test_an_apply_needs_a_manager_and_meets_others(k8s: Clients) -> None:
    await _apply(k8s, service(labels={"a": "1"}), manager="one")

    nobody = await refused(_apply(k8s, service(), manager=""), 422, "Invalid")
    assert "fieldManager: Required value: is required for apply patch" in nobody["message"]
    other = await refused(_apply(k8s, service(labels={"a": "2"}), manager="two", force=False), 409, "Conflict")
    assert 'conflict with "one": .metadata.labels.a' in other["message"]
    assert (await _apply(k8s, service(labels={"a": "2"}), manager="two")).metadata.labels == {"a": "2"}


async def test_an_apply_changes_a_pod_that_is_just_dying_but_no_fixed_field(k8s: Clients) -> None:
    ns = k8s.namespace
    k8s.cluster.kubelet.script("w", Script(stop_takes=60))
    await k8s.core.create_namespaced_pod(ns, pod(finalizers=["mlhub.test/held"]))
    changed = pod(labels={"x": "y"})
    changed["spec"]["containers"][0]["env"] = [{"name": "A", "value": "B"}]
    options = {"field_manager": "m", "force": True, "_content_type": _APPLY}

    fixed = await refused(k8s.core.patch_namespaced_pod("w", ns, changed, **options), 422, "Invalid")
    assert fixed["message"].startswith('Pod "w" is invalid: spec: Forbidden: pod updates may not change fields')
    await k8s.core.delete_namespaced_pod("w", ns)
    dying = await k8s.core.patch_namespaced_pod("w", ns, pod(labels={"x": "y"}), **options)
    assert dying.metadata.labels == {"x": "y"}
    assert dying.metadata.deletion_timestamp is not None


async def test_a_strategic_merge_knows_which_lists_are_keyed(k8s: Clients) -> None:
    ns = k8s.namespace
    await k8s.core.create_namespaced_pod(ns, pod(finalizers=["mlhub.test/a"]))
    image = {"spec": {"containers": [{"name": "workspace", "image": "other:2"}]}}
    changed = await k8s.core.patch_namespaced_pod("w", ns, image)
    more = await k8s.core.patch_namespaced_pod("w", ns, {"metadata": {"finalizers": ["mlhub.test/b"]}})

    assert [one.image for one in changed.spec.containers] == ["other:2"]
    assert changed.spec.containers[0].env[0].name == "JUPYTERHUB_SERVICE_URL"
    assert more.metadata.finalizers == ["mlhub.test/a", "mlhub.test/b"]


async def test_a_merge_patch_replaces_lists_and_removes_with_null(k8s: Clients) -> None:
    ns = k8s.namespace
    await k8s.core.create_namespaced_service(ns, service(labels={"a": "1", "b": "2"}, finalizers=["mlhub.test/a"]))
    body = {"metadata": {"labels": {"a": None}, "finalizers": ["mlhub.test/b"]}}
    changed = await k8s.core.patch_namespaced_service("w", ns, body, _content_type="application/merge-patch+json")

    assert (changed.metadata.labels, changed.metadata.finalizers) == ({"b": "2"}, ["mlhub.test/b"])


async def test_a_list_is_a_json_patch(k8s: Clients) -> None:
    ns = k8s.namespace
    await k8s.core.create_namespaced_service(ns, service(labels={"a/b": "1", "c": "2"}))
    operations = [
        {"op": "test", "path": "/metadata/labels/c", "value": "2"},
        {"op": "remove", "path": "/metadata/labels/c"},
        {"op": "replace", "path": "/metadata/labels/a~1b", "value": "3"},
        {"op": "add", "path": "/spec/ports/-", "value": {"name": "x", "port": 1}},
        {"op": "add", "path": "/spec/ports/0/name", "value": "http"},
    ]
    changed = await k8s.core.patch_namespaced_service("w", ns, operations)

    assert changed.metadata.labels == {"a/b": "3"}
    assert [port.name for port in changed.spec.ports] == ["http", "x"]
    failing = [{"op": "test", "path": "/metadata/labels/a~1b", "value": "1"}]
    await refused(k8s.core.patch_namespaced_service("w", ns, failing), 422, "Invalid")


async def test_an_unknown_kind_of_patch_is_415(k8s: Clients) -> None:
    await k8s.core.create_namespaced_service(k8s.namespace, service())
    async with k8s.http.patch(k8s.url("services", "w"), json={}) as answer:
        assert answer.status == 415


async def test_a_status_is_written_by_itself(k8s: Clients) -> None:
    ns = k8s.namespace
    await k8s.core.create_namespaced_service(ns, service())
    body = {"spec": {"selector": {"w": "x"}}, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}
    plain = await k8s.core.patch_namespaced_service("w", ns, body)
    status = await k8s.core.patch_namespaced_service_status("w", ns, {**body, "spec": {"selector": {"w": "y"}}})

    assert (plain.spec.selector, plain.status.load_balancer.ingress) == ({"w": "x"}, None)
    assert (status.spec.selector, status.status.load_balancer.ingress[0].ip) == ({"w": "x"}, "1.2.3.4")


async def test_what_of_a_claim_can_be_changed(k8s: Clients) -> None:
    ns = k8s.namespace
    await k8s.core.create_namespaced_persistent_volume_claim(ns, claim())
    bigger = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    other = {"spec": {"accessModes": ["ReadWriteMany"]}}

    assert (await k8s.core.patch_namespaced_persistent_volume_claim("w", ns, bigger)).spec.resources.requests == {
        "storage": "2Gi"
    }
    fixed = await refused(k8s.core.patch_namespaced_persistent_volume_claim("w", ns, other), 422, "Invalid")
    assert fixed["details"]["causes"][0]["field"] == "spec"
