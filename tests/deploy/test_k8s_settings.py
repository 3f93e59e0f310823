"""The services take what the manifests tell them: each variable is theirs, and each port the one they take."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlhub_standalone import cluster_secrets
from mlhub_standalone.data_dir import DataDir
from tests.support.manifests.objects import Objs, find, rendered, workload
from tests.support.service_settings import SERVICES, known

Load = Callable[[Objs, str], Any]

FIELDS = {"metadata.namespace": "mlhub", "metadata.name": "a-pod", "status.podIP": "10.1.2.3"}
NO_SETTINGS = {"MLHUB_SECRETS_DIR", "MLHUB_NAMESPACE"}
"""Read before the settings; and what others are put together from."""


def environment(objects: Objs, service: str) -> dict[str, str]:
    """As the kubelet would make it."""
    (container,) = workload(objects, service).containers
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= find(objects, "ConfigMap", source["configMapRef"]["name"], "mlhub")["data"]
    before: dict[str, str] = {}
    for variable in container["env"]:
        source = variable.get("valueFrom", {})
        if "fieldRef" in source:
            value = FIELDS[source["fieldRef"]["fieldPath"]]
        elif "configMapKeyRef" in source:
            ref = source["configMapKeyRef"]
            value = find(objects, "ConfigMap", ref["name"], "mlhub")["data"][ref["key"]]
        else:
            value = re.sub(r"\$\((\w+)\)", lambda name: before[name[1]], variable["value"])
        before[variable["name"]] = found[variable["name"]] = value
    return found


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Load:
    """A service's settings, as its pod would read them, with the Secrets that the Job makes."""

    made = cluster_secrets.complete(DataDir(tmp_path / "made"), {})

    def settings_of(objects: Objs, service: str) -> Any:
        folder = tmp_path / service
        folder.mkdir()
        for key, text in made[service].items():
            (folder / key).write_text(text)
        profiles = tmp_path / "profiles.yaml"
        profiles.write_text(find(objects, "ConfigMap", "profiles")["data"]["profiles.yaml"])
        with monkeypatch.context() as patch:
            for name, value in environment(objects, service).items():
                patch.setenv(name, value.replace("/run/secrets/mlhub", str(folder)))
            patch.setenv("MLHUB_PROFILES_FILE", str(profiles))
            return SERVICES[service]()

    return settings_of


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("overlay", ["single", "production"])
def test_every_variable_is_one_that_the_service_reads(overlay: str, service: str) -> None:
    (container,) = workload(rendered(overlay), service).containers
    own = {variable["name"] for variable in container["env"]}
    assert own - known(SERVICES[service]) - NO_SETTINGS == set()


@pytest.mark.parametrize("overlay", ["single", "production"])
def test_every_setting_of_the_operator_reaches_somebody(overlay: str) -> None:
    settings = find(rendered(overlay), "ConfigMap", "settings")["data"]
    assert settings.keys() - {name for service in SERVICES.values() for name in known(service)} == set()


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("overlay", ["single", "production"])
def test_the_service_takes_them_and_listens_where_the_manifests_say(load: Load, overlay: str, service: str) -> None:
    objects = rendered(overlay)
    settings = load(objects, service)
    ports = workload(objects, service).ports
    listens = {name: value for name, value in settings.model_dump().items() if name.endswith("_port") and value}
    assert settings.nats_password
    assert settings.internal_token
    expected = {
        "hub": lambda: {"http": listens["listen_port"]},
        "spawner-worker": lambda: {"http": listens["http_port"], "attach": listens["attach_port"]},
        "cleanup": lambda: {"http": listens["http_port"]},
        "ssh-gateway": lambda: {
            "http": listens["http_port"],
            "ssh": listens["listen_port"],
            "proxied": int(settings.proxied_listen.rpartition(":")[2]),
        },
        "proxy": lambda: {
            "http": listens["http_port"],
            "public": listens["public_port"],
            "api": listens["api_port"],
            "probe": listens["probe_port"],
        },
    }[service]()
    assert ports == expected
    # A kubelet asks at the pod's address.
    assert (settings.listen_host if service == "hub" else settings.http_host) == "0.0.0.0"  # noqa: S104


def test_the_parts_that_must_agree_do(load: Load) -> None:
    objects = rendered("production")
    hub, worker, cleanup, gateway, proxy = (load(objects, service) for service in SERVICES)
    assert {settings.nats_url.count("nats://") for settings in (hub, worker, cleanup, gateway, proxy)} == {3}
    assert (hub.backend, worker.backend) == ("kubernetes", "kubernetes")
    assert hub.policy_of_backend() == worker.policy(images_allowed=True, gpus_allowed=True, gpus_counted=True)
    assert hub.workspace_api_url == f"http://proxy-api.mlhub.svc:{proxy.api_port}"
    assert hub.probe_url == worker.probe_url == f"http://proxies:{proxy.probe_port}"
    assert worker.namespace == find(objects, "Role", "spawner-worker")["metadata"]["namespace"]
    assert worker.attach_host == FIELDS["status.podIP"]
    assert {str(place) for place in proxy.internal_networks} == {"hubs", "spawner-workers"}
    assert [str(place) for place in gateway.proxied_from] == ["proxies"]
    assert cleanup.public_url == hub.public_url == proxy.public_url == "https://hub.example.org"
    assert hub.cleanup_hub_api_token is not None
    # What pods keep is gone with them: where something lasts, it is mounted.
    assert {str(settings.data_dir) for settings in (hub, worker, proxy)} == {"/data"}
    assert {str(file.parent.name) for file in (gateway.host_key_file, gateway.client_key_file)} == {"ssh-gateway"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_variable_that_nobody_reads_is_noticed(service: str) -> None:
    assert "MLHUB_PROXY_PUBLIC_HOSTS" not in known(SERVICES[service])
    assert "MLHUB_NATS_URL" in known(SERVICES[service])
