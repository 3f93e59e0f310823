"""The worker's Role is the list of what it asks for: to the verb, and in the workspaces' namespace alone."""

import pytest

from mlhub_spawner_worker.backends.kubernetes.rights import RIGHTS
from mlhub_standalone.cluster_secrets import SECRETS
from tests.support.manifests.objects import Objs, find, of_kind, rendered
from tests.support.manifests.pod_rules import MADE


def granted(objects: Objs, role: str) -> set[tuple[str, str, str]]:
    rules = find(objects, "Role", role)["rules"]
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("overlay", ["single", "production"])
def test_the_worker_may_do_what_it_does_and_nothing_else(overlay: str) -> None:
    objects = rendered(overlay)
    assert granted(objects, "spawner-worker") == {(right.group, right.resource, right.verb) for right in RIGHTS}
    assert find(objects, "Role", "spawner-worker")["metadata"]["namespace"] == "mlhub-workspaces"
    bound = find(objects, "RoleBinding", "spawner-worker")
    assert bound["metadata"]["namespace"] == "mlhub-workspaces"
    assert bound["subjects"] == [{"kind": "ServiceAccount", "name": "spawner-worker", "namespace": "mlhub"}]


@pytest.mark.parametrize("overlay", ["single", "production"])
def test_nobody_but_the_job_may_do_anything_where_the_services_are(overlay: str) -> None:
    objects = rendered(overlay)
    own = [obj["metadata"]["name"] for obj in of_kind(objects, "Role") if obj["metadata"]["namespace"] == "mlhub"]
    assert own == ["secrets"]
    create, keep = find(objects, "Role", "secrets")["rules"]
    assert (create["resources"], create["verbs"]) == (["secrets"], ["create"])
    assert (keep["resources"], set(keep["verbs"])) == (["secrets"], {"get", "patch"})
    assert set(keep["resourceNames"]) == set(SECRETS) == MADE
