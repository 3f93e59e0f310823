"""What a profile may say of its workspaces for Kubernetes, and how a mistake is told."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mlhub_shared.contracts.cluster import ClusterProfile
from mlhub_shared.runtime.profiles import read_profiles

GIB = 2**30


def read(folder: Path, **kubernetes: Any) -> ClusterProfile:
    file = folder / "profiles.yaml"
    file.write_text(yaml.safe_dump({"profiles": [{"name": "a", "image": "a", "kubernetes": kubernetes}]}))
    return read_profiles(file)[0][0].kubernetes


def test_all_of_it_is_read(tmp_path: Path) -> None:
    profile = read(
        tmp_path,
        cpu_request=0.5,
        mem_request="512M",
        gpu_resource="amd.com/gpu",
        node_selector={"kubernetes.io/arch": "amd64"},
        tolerations=[
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"operator": "Exists", "effect": "NoExecute", "toleration_seconds": 60},
        ],
        affinity={"nodeAffinity": {}},
        volume_size="20G",
        storage_class="fast",
        access_mode="ReadWriteMany",
        labels={"team": "vision", "example.org/cost-centre": "7"},
        annotations={"example.org/note": "any words"},
        init_containers=[{"name": "fill", "image": "busybox", "command": ["true"]}],
    )
    assert (profile.mem_request, profile.volume_size) == (GIB // 2, 20 * GIB)
    assert profile.labels["team"] == "vision"
    assert ClusterProfile().volume_size == 10 * GIB


@pytest.mark.parametrize(
    ("wrong", "place", "said"),
    [
        ({"labels": {"mlhub.user": "eve"}}, "labels", "mlhub.user is set by the worker"),
        ({"labels": {"mlhub.tools/x": "1"}}, "labels", "is set by the worker"),
        ({"labels": {"app.kubernetes.io/managed-by": "me"}}, "labels", "app.kubernetes.io/managed-by is set"),
        ({"annotations": {"mlhub.record": "{}"}}, "annotations", "mlhub.record is set by the worker"),
        ({"labels": {"team": "no spaces"}}, "labels.team", "should match pattern"),
        ({"access_mode": "ReadOnlyMany"}, "access_mode", "'ReadWriteMany'"),
        ({"volume_size": ""}, "volume_size", "must be a size such as 10G"),
        ({"volume_size": "ten"}, "volume_size", "must be a size such as 2G or 512M"),
        ({"volume_size": "0"}, "volume_size", "greater than 0"),
        ({"mem_request": "-1G"}, "mem_request", "must be a size"),
        ({"cpu_request": 0}, "cpu_request", "greater than 0"),
        ({"tolerations": [{"effect": "NoSchedule"}]}, "tolerations.0", "the operator must be Exists"),
        ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, "tolerations.0", "takes no value"),
        ({"tolerations": [{"key": "a", "toleration_seconds": 5}]}, "tolerations.0", "needs the effect NoExecute"),
        ({"affinity": {"nodeafinity": {}}}, "affinity", "there is no nodeafinity; there are nodeAffinity"),
        ({"init_containers": [{"name": "x"}]}, "init_containers", "a name and an image"),
        ({"init_containers": [{"name": "workspace", "image": "x"}]}, "init_containers", "called workspace"),
        ({"init_containers": [{"name": "a", "image": "x"}] * 2}, "init_containers", "another container called a"),
        ({"privileged": True}, "privileged", "not permitted"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, wrong: dict[str, Any], place: str, said: str) -> None:
    with pytest.raises(ValueError, match="the file of profiles") as refused:
        read(tmp_path, **wrong)
    assert f"profiles.0.kubernetes.{place}" in str(refused.value)
    assert said in str(refused.value)
