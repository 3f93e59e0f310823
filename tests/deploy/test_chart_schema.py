"""The chart refuses what the services would: names and types of settings and profiles are theirs."""

import json
from pathlib import Path
from typing import Any

import pytest

from mlhub_shared.contracts.cluster import ClusterProfile, Toleration
from mlhub_shared.contracts.policy import Profile, SharedVolume
from mlhub_shared.runtime.profiles import read_profiles
from tests.support.chart_schema import profile_definitions
from tests.support.helm import CHART, Values, refusal, render
from tests.support.manifests.objects import find
from tests.support.service_settings import SERVICES, known

NFS = {"source": "nfs://files.example.org/share", "target": "/share"}
CLAIM = {"source": "datasets", "target": "/data"}

FULL: dict[str, Any] = {
    **{"name": "full", "display_name": "", "description": "Everything.", "image": "registry.example.org/a:1"},
    **{"port": 8888, "home": "/home/a", "user": "1000:100", "command": ["start"], "env": {"A": "1"}},
    **{"default_cpu": 0.5, "max_cpu": 2, "default_mem": "512M", "max_mem": 1.5, "default_shm": "", "max_shm": "1 gib"},
    **{"max_gpus": 1, "gpus_shared": True, "pids_limit": 10**6, "capabilities": ["net_bind_service"]},
    **{"privilege_escalation": False, "volumes": [{**CLAIM, "read_only": False}], "node_labels": {"disk": "ssd"}},
    **{"own_tools": False, "own_ssh": True, "start_timeout": 60},
    "kubernetes": {
        **{"cpu_request": 0.1, "mem_request": "1G", "gpu_resource": "nvidia.com/gpu", "node_selector": {"a/b": ""}},
        "tolerations": [
            {"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute", "toleration_seconds": 1}
        ],
        **{"affinity": {"podAffinity": {}}, "priority_class": "high", "image_pull_secrets": ["registry"]},
        **{"service_account": "a", "run_as_non_root": True, "fs_group": 0, "read_only_root": True},
        **{"volume_size": "20GiB", "storage_class": "fast", "access_mode": "ReadWriteMany"},
        **{"labels": {"example.org/a": "b"}, "annotations": {"example.org/a": "b, c"}},
        "init_containers": [{"name": "a", "image": "b"}],
    },
}
"""Every field, as a file of profiles may have it."""


def profile(**fields: Any) -> Values:
    return {"profiles": [{"name": "a", "image": "b", **fields}]}


def test_the_schema_of_profiles_is_that_of_the_services() -> None:
    definitions = json.loads((CHART / "values.schema.json").read_text())["$defs"]
    expected = profile_definitions()
    assert {name: definitions.get(name) for name in expected} == expected


def test_every_field_of_a_profile_can_be_given(tmp_path: Path) -> None:
    assert FULL.keys() == Profile.model_fields.keys()
    assert FULL["kubernetes"].keys() == ClusterProfile.model_fields.keys()
    assert FULL["kubernetes"]["tolerations"][0].keys() == Toleration.model_fields.keys()
    assert FULL["volumes"][0].keys() == SharedVolume.model_fields.keys()
    file = tmp_path / "profiles.yaml"
    file.write_text(find(render({"profiles": [FULL]}), "ConfigMap", "profiles")["data"]["profiles.yaml"])
    assert read_profiles(file)[0] == (Profile.model_validate(FULL),)


@pytest.mark.parametrize("part", ["profile", "kubernetes"])
def test_what_may_be_nothing_may_be_null(part: str, tmp_path: Path) -> None:
    fields = (Profile if part == "profile" else ClusterProfile).model_fields
    nothing = {name: None for name, field in fields.items() if field.default is None}
    assert len(nothing) > 3
    file = tmp_path / "profiles.yaml"
    objects = render(profile(**(nothing if part == "profile" else {"kubernetes": nothing})))
    file.write_text(find(objects, "ConfigMap", "profiles")["data"]["profiles.yaml"])
    assert read_profiles(file)[0] == (Profile(name="a", image="b"),)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (profile(imagee="z"), "at '/profiles/0': additional properties 'imagee' not allowed"),
        (profile(max_cpu="many"), "at '/profiles/0/max_cpu': got string, want null or number"),
        (profile(max_mem="lots"), "at '/profiles/0/max_mem': 'lots' does not match"),
        (profile(env={"A": 1}), "at '/profiles/0/env/A': got number, want string"),
        (profile(node_labels={"not one": "a"}), "'not one' not allowed"),
        (profile(kubernetes={"cpu_requst": 1}), "at '/profiles/0/kubernetes': additional properties 'cpu_requst'"),
        (profile(kubernetes={"tolerations": [{"effect": "No"}]}), "effect': value must be one of 'NoSchedule'"),
        ({"settings": {"MLHUB_MAX_MEMM": "8G"}}, "settings.MLHUB_MAX_MEMM: no service has a setting of this name"),
        ({"settings": {"": "8G"}}, "settings.: no service has"),
    ],
    ids=str,
)
def test_misspelt_values_are_refused(values: Values, told: str) -> None:
    assert told in refusal(values)


def test_the_names_of_settings_are_those_that_services_read() -> None:
    names = sorted({name for service in SERVICES.values() for name in known(service)})
    assert (CHART / "files/settings.txt").read_text().splitlines() == names


def test_every_setting_can_be_given_old_names_and_null_among_them() -> None:
    names = {name for service in SERVICES.values() for name in known(service)}
    data = find(render({"settings": dict.fromkeys(names, "1")}), "ConfigMap", "settings")["data"]
    assert {name for name in names if data.get(name) != "1"} == set()
    assert {"CLEANUP_INTERVAL_SECONDS", "SSL_ENABLED"} < names
    without = find(render({"settings": {"MLHUB_MAX_MEM": None}}), "ConfigMap", "settings")["data"]
    assert "MLHUB_MAX_MEM" not in without
    assert "MLHUB_MAX_CPU" in without


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"volumes": [CLAIM, NFS]}, "nfs://files.example.org/share (a PersistentVolumeClaim"),
        ({"kubernetes": {"run_as_non_root": False}}, "users that may be root"),
        (
            {"privilege_escalation": True, "capabilities": ["cap_setuid"]},
            "privilege_escalation, the capability cap_setuid",
        ),
    ],
)
def test_a_profile_that_its_namespace_would_never_admit_is_refused(fields: dict[str, Any], refused: str) -> None:
    values = profile(**fields)
    told = f"workspaces.podSecurity: must be baseline for the profile a: restricted refuses {refused}"
    assert told in refusal(values)
    assert render({**values, "workspaces": {"podSecurity": "baseline"}})
    # Of a namespace that it does not make, the chart does not know the level.
    assert render({**values, "workspaces": {"createNamespace": False}})
