"""What is refused: 400 and 422 for what an object is, 403 for where it is to be, 401 and 403 for who asks."""

from pathlib import Path
from typing import Any

import pytest

from tests.kube.clients import Clients, Obj, claim, clients_of, pod, refused, service
from tests.support.kube import FakeCluster

_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def _with(**resources: Obj) -> Obj:
    return pod(container={"resources": resources})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (pod("Upper"), "metadata.name"),
        (pod("a" * 254), "metadata.name"),
        (pod(labels={"user": "a" * 64}), "metadata.labels"),
        (pod(labels={"user": "ann@example"}), "metadata.labels"),
        (pod(labels={"user": "-a"}), "metadata.labels"),
        (pod(labels={"UPPER.example/x": "a"}), "metadata.labels"),
        (pod(annotations={"note": "x" * 262_145}), "metadata.annotations"),
        (pod(spec={"containers": []}), "spec.containers"),
        (pod(spec={"restartPolicy": "Sometimes"}), "spec.restartPolicy"),
        (pod(container={"name": "Main"}), "spec.containers[0].name"),
        (pod(container={"imagePullPolicy": "Perhaps"}), "spec.containers[0].imagePullPolicy"),
        (
            pod(container={"volumeMounts": [{"name": "x", "mountPath": "/x"}]}),
            "spec.containers[0].volumeMounts[0].name",
        ),
        (_with(limits={"cpu": "much"}), "spec.containers[0].resources.limits[cpu]"),
        (_with(limits={"cpu": "1"}, requests={"cpu": "2"}), "spec.containers[0].resources.requests"),
        (_with(limits={"nvidia.com/gpu": "0.5"}), "spec.containers[0].resources.limits[nvidia.com/gpu]"),
        (_with(requests={"nvidia.com/gpu": "1"}), "spec.containers[0].resources.limits"),
        (
            _with(limits={"nvidia.com/gpu": "2"}, requests={"nvidia.com/gpu": "1"}),
            "spec.containers[0].resources.requests",
        ),
        (_with(limits={"gpu": "1"}), "spec.containers[0].resources.limits[gpu]"),
    ],
)
async def test_a_pod_that_can_not_be(k8s: Clients, body: Obj, field: str) -> None:
    status = await refused(k8s.core.create_namespaced_pod(k8s.namespace, body), 422, "Invalid")

    assert [cause["field"] for cause in status["details"]["causes"]] == [field]
    assert status["message"].startswith(f'Pod "{body["metadata"]["name"]}" is invalid: {field}: ')


async def test_what_is_just_within_the_limits(k8s: Clients) -> None:
    name = "a" * 62 + "." + "b" * 190
    body = pod(name, labels={"user": "a" * 63, "empty": "", "x.example/y": "A_b-c.d"}, annotations={"user": "Ann Ä@x"})

    assert (await k8s.core.create_namespaced_pod(k8s.namespace, body)).metadata.annotations == {"user": "Ann Ä@x"}


async def test_services_and_claims_that_can_not_be(k8s: Clients) -> None:
    ns = k8s.namespace
    await refused(k8s.core.create_namespaced_service(ns, service("a" * 64)), 422)
    await refused(k8s.core.create_namespaced_service(ns, service("a.b")), 422)
    without = claim()
    del without["spec"]["accessModes"], without["spec"]["resources"]
    status = await refused(k8s.core.create_namespaced_persistent_volume_claim(ns, without), 422)
    assert [cause["field"] for cause in status["details"]["causes"]] == [
        "spec.accessModes",
        "spec.resources[storage]",
    ]


async def test_unknown_fields_are_dropped_or_refused_and_wrong_types_always_are(k8s: Clients) -> None:
    ns = k8s.namespace
    odd = pod(spec={"contianers": []})
    strict = await refused(k8s.core.create_namespaced_pod(ns, odd, field_validation="Strict"), 400, "BadRequest")
    assert 'strict decoding error: unknown field "spec.contianers"' in strict["message"]
    await k8s.core.create_namespaced_pod(ns, odd)
    assert "contianers" not in (k8s.cluster.get("pods", "w") or {})["spec"]

    number = pod("n", container={"env": [{"name": "A", "value": 1}]})
    status = await refused(k8s.core.create_namespaced_pod(ns, number), 400, "BadRequest")
    assert "cannot unmarshal number into Go struct field" in status["message"]
    lease = {"metadata": {"name": "l"}, "spec": {"renewTime": "2026-01-01T00:00:00Z"}}
    url = f"{k8s.cluster.url}/apis/coordination.k8s.io/v1/namespaces/{ns}/leases"
    for time, code in (("2026-01-01T00:00:00Z", 400), ("2026-01-01T00:00:00.000000Z", 201)):
        lease["spec"]["renewTime"] = time
        async with k8s.http.post(url, json=lease) as answer:
            assert answer.status == code


async def test_a_full_quota_is_met_before_the_name(k8s: Clients) -> None:
    ns = k8s.namespace
    k8s.cluster.quota("small", pods="1")
    await k8s.core.create_namespaced_pod(ns, pod())
    status = await refused(k8s.core.create_namespaced_pod(ns, pod()), 403, "Forbidden")

    assert status["message"] == (
        'pods "w" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1'
    )
    await k8s.core.delete_namespaced_pod("w", ns, grace_period_seconds=0)
    await k8s.core.create_namespaced_pod(ns, pod())


async def test_a_quota_of_computing_wants_to_be_told(k8s: Clients) -> None:
    ns = k8s.namespace
    k8s.cluster.quota(**{"limits.cpu": "2", "requests.nvidia.com/gpu": "1"})
    untold = await refused(k8s.core.create_namespaced_pod(ns, pod()), 403)
    assert untold["message"].endswith("failed quota: small: must specify limits.cpu for: workspace")
    much = await refused(k8s.core.create_namespaced_pod(ns, _with(limits={"cpu": "3"})), 403)
    assert "requested: limits.cpu=3,used: " not in much["message"]
    assert much["message"].endswith(
        "exceeded quota: small, requested: limits.cpu=3, used: limits.cpu=0, limited: limits.cpu=2"
    )
    gpus = await refused(k8s.core.create_namespaced_pod(ns, _with(limits={"cpu": "1", "nvidia.com/gpu": "2"})), 403)
    assert "requested: requests.nvidia.com/gpu=2" in gpus["message"]


async def test_a_limit_range_fills_in_and_refuses(k8s: Clients) -> None:
    ns = k8s.namespace
    k8s.cluster.limit_range(max={"memory": "128Mi"}, default={"cpu": "500m", "memory": "64Mi"})
    status = await refused(k8s.core.create_namespaced_pod(ns, _with(limits={"memory": "1Gi"})), 403)

    assert status["message"].endswith("maximum memory usage per Container is 128Mi, but limit is 1Gi")
    made = await k8s.core.create_namespaced_pod(ns, pod())
    assert made.spec.containers[0].resources.limits == {"cpu": "500m", "memory": "64Mi"}


async def test_a_restricted_namespace(k8s: Clients) -> None:
    ns = k8s.namespace
    k8s.cluster.enforce("restricted")
    status = await refused(k8s.core.create_namespaced_pod(ns, pod()), 403)

    assert status["message"].startswith(
        'pods "w" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container '
        '"workspace" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities'
    )
    await k8s.core.create_namespaced_pod(ns, pod(container={"securityContext": _RESTRICTED}))


async def test_a_service_account_that_is_not_there(k8s: Clients) -> None:
    status = await refused(
        k8s.core.create_namespaced_pod(k8s.namespace, pod(spec={"serviceAccountName": "nobody"})), 403
    )
    assert f"error looking up service account {k8s.namespace}/nobody" in status["message"]


async def test_nobody_and_somebody_without_a_right(cluster: FakeCluster, tmp_path: Path) -> None:
    ns = cluster.namespace
    async with clients_of(cluster, tmp_path, "unknown") as stranger:
        assert (await refused(stranger.core.list_namespaced_pod(ns), 401, "Unauthorized"))["message"] == "Unauthorized"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "patch", "list"]}]
    async with clients_of(cluster, tmp_path, cluster.token(rules)) as reader:
        who = f'User "system:serviceaccount:{ns}:spawner-worker"'
        created = await refused(reader.core.create_namespaced_pod(ns, pod()), 403, "Forbidden")
        assert created["message"] == (
            f'pods is forbidden: {who} cannot create resource "pods" in API group "" in the namespace "{ns}"'
        )
        applied = reader.core.patch_namespaced_pod(
            "w", ns, pod(), field_manager="m", _content_type="application/apply-patch+yaml"
        )
        assert 'cannot create resource "pods"' in (await refused(applied, 403))["message"]
        policy = await refused(reader.networking.delete_namespaced_network_policy("w", ns), 403)
        assert policy["message"].startswith(
            f'networkpolicies.networking.k8s.io "w" is forbidden: {who} cannot delete resource "networkpolicies" in '
            'API group "networking.k8s.io"'
        )
        log = await refused(reader.core.read_namespaced_pod_log("w", ns), 403)
        assert 'pods "w" is forbidden' in log["message"]
        assert 'cannot get resource "pods/log"' in log["message"]
        everywhere = await refused(reader.core.list_pod_for_all_namespaces(), 403)
        assert everywhere["message"].endswith('cannot list resource "pods" in API group "" at the cluster scope')
        await refused(reader.core.list_namespaced_pod("default"), 403)


async def test_a_right_is_taken_away_and_given_back(k8s: Clients) -> None:
    k8s.cluster.faults.revoke("create", "pods")
    status = await refused(k8s.core.create_namespaced_pod(k8s.namespace, pod()), 403)
    assert 'cannot create resource "pods"' in status["message"]
    k8s.cluster.faults.grant("create", "pods")
    await k8s.core.create_namespaced_pod(k8s.namespace, pod())


async def test_what_may_i_do(cluster: FakeCluster, tmp_path: Path) -> None:
    rules = [{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]}]
    async with clients_of(cluster, tmp_path, cluster.token(rules)) as k8s:

        async def may(**attributes: Any) -> bool:
            spec = {"resourceAttributes": {"namespace": cluster.namespace, "verb": "create", **attributes}}
            url = f"{cluster.url}/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
            async with k8s.http.post(url, json={"spec": spec}) as answer:
                return bool((await answer.json())["status"]["allowed"])

        assert await may(resource="pods", subresource="exec")
        assert not await may(resource="pods")
