"""What the chart makes of zero-to-jupyterhub's values, and what it says to those it can't honour."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from mlhub_shared.contracts.policy import Profile, SharedVolume
from mlhub_shared.runtime.profiles import read_profiles
from tests.support.helm import CHART, Values, deploy, environment, refusal, render
from tests.support.manifests.objects import Objs, find
from tests.support.manifests.schemas import VERSIONS, invalid

DATA = Path(__file__).parents[1] / "data/chart"
GIB = 1024**3
REFUSED: dict[str, dict[str, Any]] = yaml.safe_load((CHART / "files/zero-to-jupyterhub.yaml").read_text())
REGISTRY = "quay.io/jupyter"

UNIVERSITY: Values = yaml.safe_load((DATA / "university.yaml").read_text())
BASELINE: Values = {"workspaces": {"podSecurity": "baseline"}}


def put(values: Values, path: str, value: Any) -> None:
    """Set this one at a dotted path."""
    *folders, last = path.split(".")
    for folder in folders:
        values = values.setdefault(folder, {})
    values[last] = value


def override(**options: Any) -> Values:
    """`singleuser` with one profile that overrides these."""
    return {"profileList": [{"display_name": "A", "kubespawner_override": options}]}


def volume(source: Values, **mount: str) -> Values:
    """`singleuser` with this volume, mounted at /data unless the mount says otherwise."""
    return {
        "storage": {
            "extraVolumes": [{"name": "a", **source}],
            "extraVolumeMounts": [{"name": "a", "mountPath": "/data", **mount}],
        }
    }


@pytest.fixture(scope="module")
def university() -> Objs:
    # It mounts NFS.
    return deploy({**UNIVERSITY, **BASELINE})


@pytest.fixture
def profiles(university: Objs, tmp_path: Path) -> dict[str, Profile]:
    return read(university, tmp_path)


def read(objects: Objs, folder: Path) -> dict[str, Profile]:
    """The profiles, as hub and workers read them."""
    file = folder / "profiles.yaml"
    file.write_text(find(objects, "ConfigMap", "profiles")["data"]["profiles.yaml"])
    return {profile.name: profile for profile in read_profiles(file)[0]}


def loaded(objects: Objs, folder: Path) -> Config:
    """The hub's configuration, as JupyterHub reads it."""
    for name, text in find(objects, "Secret", "hub-config")["stringData"].items():
        (folder / name).write_text(text)
    config: Config = PyFileConfigLoader("jupyterhub_user_config.py", path=str(folder)).load_config()
    return config


@pytest.mark.parametrize("version", VERSIONS)
def test_what_becomes_of_them_is_valid(university: Objs, version: str) -> None:
    assert invalid(university, version) == []


def test_singleuser_becomes_a_profile(profiles: dict[str, Profile]) -> None:
    profile = profiles["minimal-environment"]
    assert (profile.display_name, profile.image) == ("Minimal environment", f"{REGISTRY}/minimal-notebook:2025-01-01")
    assert profile.description.startswith("To avoid")
    # Nobody gets more than there, and who asks for nothing gets the same.
    assert (profile.default_cpu, profile.max_cpu) == (4, 4)
    assert (profile.default_mem, profile.max_mem) == (4 * GIB, 4 * GIB)
    assert (profile.default_shm, profile.max_shm) == (4 * GIB, 4 * GIB)
    assert (profile.command, profile.user, profile.home, profile.start_timeout) == (None, "1001", "/home/jovyan", 600)
    assert profile.volumes == (
        SharedVolume(source="datasets", target="/data", read_only=True),
        SharedVolume(source="nfs://files.example.edu/share", target="/share", read_only=False),
    )
    cluster = profile.kubernetes
    assert (cluster.cpu_request, cluster.mem_request, cluster.fs_group) == (0.05, 512 * 1024**2, 1002)
    assert (cluster.volume_size, cluster.storage_class, cluster.access_mode) == (2 * GIB, "fast", "ReadWriteMany")
    assert set(cluster.image_pull_secrets) == {"everywhere", "registry"}
    assert (cluster.service_account, cluster.node_selector) == ("workspace", {"pool": "users"})
    assert {each.key: each.toleration_seconds for each in cluster.tolerations} == {
        "hub.jupyter.org/dedicated": None,
        "users": 60,
    }
    affinity: Any = cluster.affinity
    (zone, purpose) = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert zone["matchExpressions"][0]["key"] == "zone"
    assert purpose["matchExpressions"][0]["values"] == ["user"]
    assert cluster.labels == {"cost-center": "research"}
    assert cluster.annotations == {"example.org/owner": "it"}
    assert [container["name"] for container in cluster.init_containers] == ["prepare"]


def test_what_a_profile_overrides_is_its_own(profiles: dict[str, Profile]) -> None:
    # The default one comes first, as everywhere here.
    assert list(profiles) == ["datascience", "minimal-environment", "gpu-server"]
    science, gpu = profiles["datascience"], profiles["gpu-server"]
    assert (science.image, science.max_cpu) == (f"{REGISTRY}/datascience-notebook:2025-01-01", 8)
    # With JupyterHub, a number counts bytes.
    assert (science.max_mem, science.kubernetes.mem_request) == (16 * GIB, GIB)
    assert (science.env, science.start_timeout) == ({"R_LIBS": "/opt/R", "N": "1"}, 900)
    # Maps are merged, all else is replaced, as KubeSpawner does.
    assert science.kubernetes.node_selector == {"pool": "users", "size": "large"}
    assert (gpu.max_gpus, gpu.kubernetes.gpu_resource) == (2, "nvidia.com/gpu")
    # With or without MLHUB_MAX_GPUS.
    assert science.max_gpus == profiles["minimal-environment"].max_gpus == 0
    assert [each.key for each in gpu.kubernetes.tolerations] == ["nvidia.com/gpu"]
    assert gpu.image == profiles["minimal-environment"].image


def test_what_is_not_said_is_as_there(tmp_path: Path) -> None:
    (profile,) = read(render({"singleuser": {"image": {"name": "busybox"}}}), tmp_path).values()
    assert (profile.name, profile.command, profile.user) == ("default", ("jupyterhub-singleuser",), "1000")
    assert (profile.start_timeout, profile.max_mem, profile.kubernetes.mem_request) == (300, None, GIB)
    assert (profile.kubernetes.volume_size, profile.kubernetes.fs_group) == (10 * GIB, 100)
    root = {"singleuser": {"image": {"name": "busybox"}, "uid": 0, "fsGid": None, "cmd": None}}
    (profile,) = read(render({**root, **BASELINE}), tmp_path).values()
    assert (profile.user, profile.kubernetes.run_as_non_root, profile.command) == ("0", False, None)
    own = {"singleuser": {"image": {"name": "busybox"}, "uid": None, "cmd": ["start.sh", "jupyter"]}}
    (profile,) = read(render(own), tmp_path).values()
    assert (profile.user, profile.command) == (None, ("start.sh", "jupyter"))


def test_a_profile_list_may_be_a_map(tmp_path: Path) -> None:
    entries = {"b": {"display_name": "Second"}, "a": {"display_name": "First"}}
    found = read(render({"singleuser": {"profileList": entries}}), tmp_path)
    assert {name: profile.display_name for name, profile in found.items()} == {"a": "First", "b": "Second"}


def test_the_hub_reads_its_configuration(university: Objs, tmp_path: Path) -> None:
    config = loaded(university, tmp_path)
    assert config.JupyterHub.authenticator_class == "github"
    assert config.GitHubOAuthenticator.client_secret == "your-client-secret"
    assert config.Authenticator.admin_users == ["user1", "user2"]
    assert config.JupyterHub.named_server_limit_per_user == 3
    assert config.Spawner.default_url == "/lab"
    # One piece of code after the other, by their names.
    added = config.JupyterHub.services.get_value([{"name": "ours"}])
    assert [service["name"] for service in added] == ["ours", "mine"]
    assert config.Spawner.environment.get_value({}) == {
        "EDITOR": "vim",
        "THREADS": "4",
        "JUPYTERHUB_SINGLEUSER_APP": "jupyter_server.serverapp.ServerApp",
    }
    settings = find(university, "ConfigMap", "settings")["data"]
    assert settings["MLHUB_HUB_USER_CONFIG"] == "/config/jupyterhub_user_config.py"
    sources = find(university, "Deployment", "hub")["spec"]["template"]["spec"]["volumes"][1]["projected"]["sources"]
    assert {"secret": {"name": "hub-config"}} in sources


def test_no_secret_of_theirs_is_in_a_config_map_or_a_pod(university: Objs) -> None:
    elsewhere = [obj for obj in university if obj["kind"] != "Secret"]
    text = json.dumps(elsewhere)
    for secret in ("your-client-secret", "of the database", "0123456789abcdef", "a token of 16 ch"):
        assert secret not in text


def test_an_error_in_extra_config_names_its_place(tmp_path: Path) -> None:
    objects = render({"hub": {"extraConfig": {"mine": "c.JupyterHub.x = 1\noh no"}}})
    with pytest.raises(SyntaxError) as error:
        loaded(objects, tmp_path)
    assert (error.value.filename, error.value.lineno) == ("hub.extraConfig.mine", 2)


def test_the_rest_becomes_settings_and_services(university: Objs) -> None:
    settings = find(university, "ConfigMap", "settings")["data"]
    assert (
        settings
        | {
            "MLHUB_HUB_PUBLIC_URL": "https://hub.example.edu",
            "MLHUB_HUB_SSH_PORT": "22",
            "MLHUB_HUB_WORKSPACES": "self-service",
            "MLHUB_PROXY_TLS": "true",
            "MLHUB_PROXY_ACME_DOMAINS": "hub.example.edu",
            "MLHUB_PROXY_ACME_EMAIL": "ops@example.edu",
            "MLHUB_SPAWNER_WORKER_PULL": "always",
            "MLHUB_MAX_DAYS_TO_LIVE": "0.500000",
            "MLHUB_LOG_LEVEL": "debug",
        }
        == settings
    )
    # With the driver that we have.
    database = find(university, "Secret", "hub-database")["stringData"]
    assert database["MLHUB_HUB_DATABASE_URL"] == "postgresql://hub@database.example.edu:5432/hub"
    service = find(university, "Service", "proxy")
    assert service["spec"]["loadBalancerIP"] == "192.0.2.1"
    assert service["spec"]["loadBalancerSourceRanges"] == ["198.51.100.0/24"]
    assert service["metadata"]["annotations"] == {"example.org/balancer": "internal"}
    hub = find(university, "Deployment", "hub")
    assert environment(hub)["RENAMED"] == {"secretKeyRef": {"name": "mine", "key": "other"}}
    assert environment(hub)["OAUTH2_AUTHORIZE_URL"] == "https://idp.example.edu/authorize"
    pod = hub["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["requests"] == {"cpu": "500m", "memory": "2Gi"}
    assert "preferredDuringSchedulingIgnoredDuringExecution" in pod["affinity"]["nodeAffinity"]
    puller = find(university, "DaemonSet", "pre-puller")["spec"]["template"]["spec"]
    assert {container["image"].rpartition("/")[2] for container in puller["initContainers"]} == {
        "minimal-notebook:2025-01-01",
        "datascience-notebook:2025-01-01",
    }


def test_one_workspace_each_where_named_servers_are_off() -> None:
    settings = find(render({"hub": {"allowNamedServers": False}}), "ConfigMap", "settings")["data"]
    assert settings["MLHUB_HUB_WORKSPACES"] == "one-each"


def test_tls_that_ends_before_us_is_not_ours() -> None:
    objects = render({"proxy": {"https": {"enabled": True, "type": "offload", "hosts": ["hub.example.edu"]}}})
    settings = find(objects, "ConfigMap", "settings")["data"]
    assert settings["MLHUB_HUB_PUBLIC_URL"] == "https://hub.example.edu"
    assert "MLHUB_PROXY_TLS" not in settings


@pytest.fixture(scope="module")
def all_refused() -> str:
    """What is said to somebody who has set everything that is not known here."""
    values: Values = {}
    for path in REFUSED:
        put(values, path, {"something": "of theirs"})
    return refusal(values)


@pytest.mark.parametrize("path", REFUSED)
def test_what_it_does_not_know_it_names_with_what_there_is_instead(path: str, all_refused: str) -> None:
    assert f"- {path} is not known here. Instead: {REFUSED[path]['instead']}\n" in f"{all_refused}\n"


@pytest.mark.parametrize("number", range(max(len(refused.get("fine", ())) for refused in REFUSED.values())))
def test_what_asks_for_nothing_else_is_passed_over(number: int) -> None:
    values: Values = {}
    for path, refused in REFUSED.items():
        put(values, path, dict(enumerate(refused.get("fine", ()))).get(number))
    assert render(values)


@pytest.mark.parametrize(
    ("singleuser", "told"),
    [
        (
            {"profileList": [{"display_name": "A", "profile_options": {}}]},
            "profileList[0].profile_options: write one profile",
        ),
        (
            {"profileList": [{"display_name": "A"}, {"display_name": "a"}]},
            'profileList[1]: needs a slug of its own, not "a"',
        ),
        ({"profileList": [{"display_name": "!"}]}, 'profileList[0]: needs a slug of its own, not ""'),
        (override(lifecycle_hooks={}), "kubespawner_override.lifecycle_hooks: not known here"),
        (override(extra_resource_limits={"a/b": 1, "c/d": 1}), "gives one kind of GPU, not a/b, c/d"),
        (override(extra_resource_guarantees={"a/b": 1}), "extra_resource_guarantees: must be the limits"),
        (override(environment={"JPY_A": "b"}), "environment.JPY_A: the hub sets variables of that kind"),
        (override(environment={"A": {"valueFrom": {}}}), "environment.A: only a plain value"),
        ({"extraEnv": {"A": {"valueFrom": {}}}}, "singleuser.extraEnv.A: only a plain value"),
        ({"initContainers": [{"name": "a-{username}"}]}, "contains {username}, which only KubeSpawner fills in"),
        (volume({"hostPath": {"path": "/data"}}), "the volume at /data is none of"),
        (volume({"emptyDir": {"medium": "Memory"}}, mountPath="/dev/shm"), "/dev/shm needs a sizeLimit"),
        (volume({"persistentVolumeClaim": {"claimName": "a"}}, subPath="b"), "at /data has a subPath"),
        ({"storage": {"dynamic": {"storageAccessModes": ["ReadWriteOnce", "ReadWriteMany"]}}}, "a volume has one"),
    ],
)
def test_what_no_profile_can_have_is_told(singleuser: Values, told: str) -> None:
    assert told in refusal({"singleuser": singleuser})


def test_nfs_needs_a_namespace_that_takes_it() -> None:
    told = refusal(UNIVERSITY)
    for name in ("datascience", "minimal-environment", "gpu-server"):
        problem = f"- workspaces.podSecurity: must be baseline for the profile {name}: restricted refuses nfs://files"
        assert told.count(problem) == 1
    assert told.count("\n- ") == 3


@pytest.mark.parametrize(
    ("hub", "told"),
    [
        ({"extraConfig": {"a": "c.KubeSpawner.cmd = 1"}}, "hub.extraConfig.a: names KubeSpawner"),
        ({"extraConfig": {"a": "from z2jh import get_config"}}, "hub.extraConfig.a: imports z2jh"),
        ({"config": {"Spawner": {"mem_limit": "1G"}}}, "hub.config.Spawner.mem_limit: the workers spawn"),
        ({"image": {"name": "quay.io/jupyterhub/k8s-hub"}}, "hub.image.name: our hub"),
    ],
)
def test_what_no_hub_can_be_told_is_told(hub: Values, told: str) -> None:
    assert told in refusal({"hub": hub})


def test_idle_workspaces_are_not_culled_and_that_is_said() -> None:
    told = refusal({"cull": {"enabled": True, "timeout": 3600, "every": 300}})
    assert "cull.timeout is not known here" in told
    assert "cull.enabled: needs cull.maxAge" in told


def test_everything_that_is_wrong_is_told_at_once() -> None:
    told = refusal(
        {"proxy": {"secretToken": "a"}, "cull": {"enabled": True}, "singleuser": override(pod_name_template="a")}
    )
    assert told.count("\n- ") == 3
