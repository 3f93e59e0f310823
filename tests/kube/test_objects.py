"""Objects: what the server fills in, how they are found, and versions."""

from tests.kube.clients import Clients, claim, pod, refused, service
from tests.support.kube import Script


async def test_what_the_server_fills_in(k8s: Clients) -> None:
    k8s.cluster.kubelet.script("w", Script(unschedulable="no room"))
    made = await k8s.core.create_namespaced_pod(k8s.namespace, pod(spec={"terminationGracePeriodSeconds": None}))
    plain = pod("plain", labels={"a": "b"})
    del plain["spec"]["terminationGracePeriodSeconds"], plain["spec"]["automountServiceAccountToken"]
    plain["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1", "memory": "1Gi"}}
    filled = (await k8s.core.create_namespaced_pod(k8s.namespace, plain)).to_dict()

    assert made.metadata.uid
    assert made.spec.termination_grace_period_seconds == 30
    assert made.metadata.creation_timestamp.tzinfo is not None
    assert (made.metadata.namespace, made.status.phase) == (k8s.namespace, "Pending")
    assert filled["spec"]["termination_grace_period_seconds"] == 30
    assert filled["status"]["qos_class"] == "Guaranteed"
    assert filled["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "1", "memory": "1Gi"}
    assert filled["spec"]["containers"][0]["image_pull_policy"] == "IfNotPresent"
    mounts = [mount["mount_path"] for mount in filled["spec"]["containers"][0]["volume_mounts"]]
    assert mounts == ["/var/run/secrets/kubernetes.io/serviceaccount"]
    assert made.spec.containers[0].volume_mounts is None


async def test_a_name_is_made_up_on_request(k8s: Clients) -> None:
    body = service()
    body["metadata"] = {"generateName": "w-"}

    names = {(await k8s.core.create_namespaced_service(k8s.namespace, body)).metadata.name for _ in range(3)}

    assert len(names) == 3
    assert all(name.startswith("w-") and len(name) == 7 for name in names)


async def test_a_service_gets_an_address_unless_it_wants_none(k8s: Clients) -> None:
    body = service("with")
    del body["spec"]["clusterIP"]

    assert (await k8s.core.create_namespaced_service(k8s.namespace, body)).spec.cluster_ip.startswith("10.96.")
    assert (await k8s.core.create_namespaced_service(k8s.namespace, service())).spec.cluster_ip == "None"


async def test_versions_grow_with_every_change_and_stay_without_one(k8s: Clients) -> None:
    ns = k8s.namespace
    first = await k8s.core.create_namespaced_service(ns, service())
    second = await k8s.core.patch_namespaced_service("w", ns, {"metadata": {"labels": {"a": "b"}}})
    third = await k8s.core.patch_namespaced_service("w", ns, {"metadata": {"labels": {"a": "b"}}})

    versions = [int(one.metadata.resource_version) for one in (first, second, third)]
    assert versions[0] < versions[1] == versions[2]


async def test_an_old_version_and_another_uid_are_conflicts(k8s: Clients) -> None:
    ns = k8s.namespace
    stale = (await k8s.core.create_namespaced_service(ns, service())).to_dict()
    await k8s.core.patch_namespaced_service("w", ns, {"metadata": {"labels": {"a": "b"}}})
    old = {"metadata": {"resourceVersion": stale["metadata"]["resource_version"]}}
    body = service()
    body["metadata"]["resourceVersion"] = stale["metadata"]["resource_version"]

    put = await refused(k8s.core.replace_namespaced_service("w", ns, body), 409, "Conflict")
    assert put["message"].startswith('Operation cannot be fulfilled on services "w": the object has been modified')
    await refused(k8s.core.patch_namespaced_service("w", ns, old), 409, "Conflict")
    await refused(k8s.core.patch_namespaced_service("w", ns, {"metadata": {"uid": "another"}}), 409, "Conflict")


async def test_a_put_replaces_all_but_what_is_the_servers_own(k8s: Clients) -> None:
    ns = k8s.namespace
    before = await k8s.core.create_namespaced_service(ns, service(labels={"a": "b"}))
    after = await k8s.core.replace_namespaced_service("w", ns, service(annotations={"c": "d"}))

    assert (after.metadata.labels, after.metadata.annotations) == (None, {"c": "d"})
    assert after.metadata.uid == before.metadata.uid


async def test_a_name_that_is_taken_and_one_that_is_not_there(k8s: Clients) -> None:
    ns = k8s.namespace
    await k8s.core.create_namespaced_pod(ns, pod())

    taken = await refused(k8s.core.create_namespaced_pod(ns, pod()), 409, "AlreadyExists")
    assert taken["message"] == 'pods "w" already exists'
    assert taken["details"] == {"name": "w", "kind": "pods"}
    missing = await refused(k8s.networking.read_namespaced_network_policy("n", ns), 404, "NotFound")
    assert missing["message"] == 'networkpolicies.networking.k8s.io "n" not found'
    nowhere = await refused(k8s.core.create_namespaced_pod("nowhere", pod()), 404, "NotFound")
    assert nowhere["message"] == 'namespaces "nowhere" not found'


async def test_a_dry_run_refuses_and_keeps_nothing(k8s: Clients) -> None:
    ns = k8s.namespace
    assert (await k8s.core.create_namespaced_pod(ns, pod(), dry_run="All")).metadata.name == "w"
    assert k8s.cluster.objects("pods") == []
    k8s.cluster.quota(pods="0")
    await refused(k8s.core.create_namespaced_pod(ns, pod(), dry_run="All"), 403)
    await k8s.core.create_namespaced_persistent_volume_claim(ns, claim())
    await k8s.core.delete_namespaced_persistent_volume_claim("w", ns, dry_run="All")
    assert "deletionTimestamp" not in (k8s.cluster.get("persistentvolumeclaims", "w") or {})["metadata"]


async def test_lists_are_selected_by_labels(k8s: Clients) -> None:
    for name, labels in (("a", {"x": "1", "y": ""}), ("b", {"x": "2"}), ("c", {})):
        await k8s.core.create_namespaced_service(k8s.namespace, service(name, labels=labels))

    async def names(selector: str) -> str:
        found = await k8s.core.list_namespaced_service(k8s.namespace, label_selector=selector)
        return "".join(item.metadata.name for item in found.items)

    found = {
        selector: await names(selector)
        for selector in ("x=1", "x==1", "x!=1", "x", "!x", "x in (1,2),!y", "x notin (1)", "y=")
    }
    assert found == {
        "x=1": "a",
        "x==1": "a",
        "x!=1": "bc",
        "x": "ab",
        "!x": "c",
        "x in (1,2),!y": "b",
        "x notin (1)": "bc",
        "y=": "a",
    }


async def test_lists_are_selected_by_the_fields_that_the_server_knows(k8s: Clients) -> None:
    ns = k8s.namespace
    k8s.cluster.kubelet.script("b", Script(unschedulable="no room"))
    for name in ("a", "b"):
        await k8s.core.create_namespaced_pod(ns, pod(name))

    by_name = await k8s.core.list_namespaced_pod(ns, field_selector="metadata.name=b,status.phase=Pending")
    assert [item.metadata.name for item in by_name.items] == ["b"]
    events = await k8s.core.list_namespaced_event(
        ns, field_selector=f"involvedObject.kind=Pod,involvedObject.uid={by_name.items[0].metadata.uid}"
    )
    assert all(event.involved_object.name == "b" for event in events.items)
    unknown = await refused(k8s.core.list_namespaced_pod(ns, field_selector="spec.hostname=x"), 400, "BadRequest")
    assert unknown["message"] == "field label not supported: spec.hostname"


async def test_a_long_list_comes_in_parts(k8s: Clients) -> None:
    for number in range(5):
        await k8s.core.create_namespaced_service(k8s.namespace, service(f"s{number}"))
    first = await k8s.core.list_namespaced_service(k8s.namespace, limit=3)
    rest = await k8s.core.list_namespaced_service(k8s.namespace, limit=3, _continue=first.metadata._continue)

    assert first.metadata.remaining_item_count == 2
    assert [item.metadata.name for item in first.items + rest.items] == [f"s{number}" for number in range(5)]
    assert rest.metadata._continue is None
    k8s.cluster.faults.compact()
    old = k8s.core.list_namespaced_service(k8s.namespace, limit=3, _continue=first.metadata._continue)
    await refused(old, 410, "Expired")


async def test_items_of_a_list_carry_no_kind(k8s: Clients) -> None:
    await k8s.core.create_namespaced_service(k8s.namespace, service())
    async with k8s.http.get(k8s.url("services")) as answer:
        listed = await answer.json()

    assert (listed["kind"], listed["apiVersion"]) == ("ServiceList", "v1")
    assert "kind" not in listed["items"][0]
