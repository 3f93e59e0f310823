import os
from dataclasses import replace
from pathlib import Path

import pytest

from mlhub_cleanup.settings import CleanupSettings
from mlhub_hub.settings import HubSettings
from mlhub_proxy.settings import ProxySettings
from mlhub_shared.runtime.settings import CommonSettings
from mlhub_spawner_worker.settings import SpawnerWorkerSettings
from mlhub_ssh_gateway.settings import SshGatewaySettings
from mlhub_standalone import credentials, environment, https
from mlhub_standalone.component import SERVICES
from mlhub_standalone.components import service_components
from mlhub_standalone.credentials import Credentials
from mlhub_standalone.data_dir import DataDir, make_socket_folder
from mlhub_standalone.environment import environment_of, remarks
from mlhub_standalone.errors import LauncherError
from mlhub_standalone.instance import Instance, plan
from mlhub_standalone.options import DOCKER, Asked

SETTINGS: dict[str, type[CommonSettings]] = {
    "hub": HubSettings,
    "spawner-worker": SpawnerWorkerSettings,
    "proxy": ProxySettings,
    "cleanup": CleanupSettings,
    "ssh-gateway": SshGatewaySettings,
}


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    data = DataDir(tmp_path / "data")
    data.create()
    return data


@pytest.fixture
def secrets(data: DataDir) -> Credentials:
    return credentials.make(data)


@pytest.fixture
def instance(data: DataDir) -> Instance:
    return plan(data, Asked(port=9000, ssh_port=9022, hub_name="team", capacity=3), {})


def settings_of(
    service: str, instance: Instance, secrets: Credentials, patch: pytest.MonkeyPatch, **person: str
) -> CommonSettings:
    """What a service makes of the environment it is started in."""
    for name in os.environ:
        patch.delenv(name)
    for name, value in environment_of(service, instance, secrets, person).items():
        patch.setenv(name, value)
    return SETTINGS[service]()


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_gets_on_the_bus(
    service: str, instance: Instance, secrets: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(service, instance, secrets, monkeypatch)
    bus = settings.bus(service)
    assert (bus.url, bus.hub) == (f"nats://127.0.0.1:{instance.internal['nats']}", "team")
    assert (bus.user, bus.password) == (credentials.NATS_USER, secrets.nats_password)
    assert settings.internal_token is not None
    assert settings.http_host == "127.0.0.1"


def test_the_services_find_each_other(
    instance: Instance, secrets: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = settings_of("hub", instance, secrets, monkeypatch)
    worker = settings_of("spawner-worker", instance, secrets, monkeypatch)
    proxy = settings_of("proxy", instance, secrets, monkeypatch)
    cleanup = settings_of("cleanup", instance, secrets, monkeypatch)
    gateway = settings_of("ssh-gateway", instance, secrets, monkeypatch)
    assert isinstance(hub, HubSettings)
    assert isinstance(worker, SpawnerWorkerSettings)
    assert isinstance(proxy, ProxySettings)
    assert isinstance(cleanup, CleanupSettings)
    assert isinstance(gateway, SshGatewaySettings)
    api = f"http://{hub.listen_host}:{hub.listen_port}/hub/api"
    probe = f"http://{proxy.probe_host}:{proxy.probe_port}"
    assert hub.public_url == f"http://{proxy.public_host}:{proxy.public_port}" == "http://127.0.0.1:9000"
    assert hub.probe_url == worker.probe_url == probe
    assert hub.workspace_api_url == f"http://{proxy.api_host}:{proxy.api_port}"
    assert proxy.hub_url == f"http://{hub.listen_host}:{hub.listen_port}"
    assert hub.cleanup_url == f"http://{cleanup.http_host}:{cleanup.http_port}"
    assert str(cleanup.hub_api_url) == str(gateway.hub_api_url) == api
    assert (hub.ssh_port, gateway.listen_port) == (9022, 9022)
    assert proxy.ssh_gateway == (str(instance.data.ssh_socket), 0)
    assert gateway.proxied_listen == f"unix:{instance.data.ssh_socket}"
    assert proxy.tls is False
    assert worker.capacity == 3


def test_with_https_everybody_knows_of_it_and_the_site_is_where_people_were_told(
    data: DataDir, secrets: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_port = plan(data, Asked(port=443, ssh_port=0, tls=True), {})
    hub = settings_of("hub", one_port, secrets, monkeypatch)
    proxy = settings_of("proxy", one_port, secrets, monkeypatch, SSL_ENABLED="false")
    gateway = settings_of("ssh-gateway", one_port, secrets, monkeypatch)
    assert isinstance(hub, HubSettings)
    assert isinstance(proxy, ProxySettings)
    assert isinstance(gateway, SshGatewaySettings)
    assert (hub.public_url, hub.ssh_host, hub.ssh_port) == ("https://127.0.0.1", "127.0.0.1", 443)
    assert proxy.tls is True
    assert (gateway.listen_host, gateway.listen_port) == ("127.0.0.1", 0)
    person = {"MLHUB_HUB_PUBLIC_URL": "https://hub.example:9443"}
    told = replace(plan(data, Asked(port=8443, tls=True), person), in_container=True)
    hub = settings_of("hub", told, secrets, monkeypatch, **person)
    cleanup = settings_of("cleanup", told, secrets, monkeypatch, **person)
    proxy = settings_of("proxy", told, secrets, monkeypatch, **person)
    assert isinstance(hub, HubSettings)
    assert isinstance(cleanup, CleanupSettings)
    assert isinstance(proxy, ProxySettings)
    assert hub.public_url == cleanup.public_url == "https://hub.example:9443"
    assert (hub.ssh_host, hub.ssh_port) == ("hub.example", 9443)
    assert "hub.example" in proxy.tls_names


def test_a_data_directory_deep_down_leaves_room_for_the_socket(tmp_path: Path) -> None:
    deep = DataDir(tmp_path / ("x" * 100))
    assert len(os.fsencode(deep.ssh_socket)) <= 97, "HAProxy takes no longer ones"
    assert deep.ssh_socket != DataDir(tmp_path / ("y" * 100)).ssh_socket
    make_socket_folder(deep)
    make_socket_folder(deep)
    deep.ssh_socket.parent.chmod(0o755)
    with pytest.raises(LauncherError, match="--data-dir"):
        make_socket_folder(deep)


def test_the_services_share_their_tokens_with_the_hub_alone(
    instance: Instance, secrets: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = settings_of("hub", instance, secrets, monkeypatch)
    cleanup = settings_of("cleanup", instance, secrets, monkeypatch)
    gateway = settings_of("ssh-gateway", instance, secrets, monkeypatch)
    proxy = settings_of("proxy", instance, secrets, monkeypatch)
    assert isinstance(hub, HubSettings)
    assert isinstance(cleanup, CleanupSettings)
    assert isinstance(gateway, SshGatewaySettings)
    assert isinstance(proxy, ProxySettings)
    assert hub.cleanup_hub_api_token == cleanup.hub_api_token is not None
    assert hub.ssh_gateway_hub_api_token == gateway.hub_api_token is not None
    assert hub.proxy_hub_api_token == proxy.hub_api_token is not None
    assert len({hub.cleanup_hub_api_token, hub.ssh_gateway_hub_api_token, hub.proxy_hub_api_token}) == 3


def test_containers_find_the_hub_and_nobody_else_is_let_in_there(
    data: DataDir, secrets: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = replace(plan(data, Asked(hub_name="team"), {}), backend=DOCKER, network_pool="10.99.0.0/16")
    hub = settings_of("hub", instance, secrets, monkeypatch)
    assert isinstance(hub, HubSettings)
    proxy = environment_of("proxy", instance, secrets, {})
    worker = environment_of("spawner-worker", instance, secrets, {})
    port = str(instance.internal["hub-api"])
    assert hub.backend == worker["MLHUB_SPAWNER_WORKER_BACKEND"] == "docker"
    assert hub.workspace_api_url == f"http://mlhub:{port}"
    assert (proxy["MLHUB_PROXY_API_HOST"], proxy["MLHUB_PROXY_API_PORT"]) == ("0.0.0.0", port)  # noqa: S104
    assert proxy["MLHUB_PROXY_API_NETWORKS"] == "127.0.0.0/8,10.99.0.0/16"
    gateway = environment_of("ssh-gateway", instance, secrets, {})
    assert proxy["MLHUB_PROXY_REFUSED_NETWORKS"] == "10.99.0.0/16"
    assert gateway["MLHUB_SSH_GATEWAY_REFUSED_NETWORKS"] == "10.99.0.0/16"
    assert worker["MLHUB_SPAWNER_WORKER_NETWORK_POOL"] == "10.99.0.0/16"
    assert worker["MLHUB_SPAWNER_WORKER_API_PORT"] == port
    assert worker["MLHUB_SPAWNER_WORKER_REACH"] == "host"
    inside = environment_of("spawner-worker", replace(instance, in_container=True), secrets, {})
    assert inside["MLHUB_SPAWNER_WORKER_REACH"] == "self"


def test_processes_leave_the_hubs_api_on_the_loopback(instance: Instance, secrets: Credentials) -> None:
    proxy = environment_of("proxy", instance, secrets, {})
    assert proxy["MLHUB_PROXY_API_HOST"] == "127.0.0.1"
    assert "MLHUB_SPAWNER_WORKER_REACH" not in environment_of("spawner-worker", instance, secrets, {})


def test_the_parts_know_the_hub_by_the_name_that_was_asked_for(instance: Instance, secrets: Credentials) -> None:
    person = {"HUB_NAME": "other", "MLHUB_HUB_NAME": "other"}
    assert environment_of("hub", instance, secrets, person)["MLHUB_HUB_NAME"] == "team"


def test_the_files_of_an_old_container_are_read_where_they_were(
    instance: Instance, secrets: Credentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, certificate = tmp_path / "jupyterhub_user_config.py", tmp_path / "cert.crt"
    monkeypatch.setattr(environment, "USER_CONFIG", config)
    monkeypatch.setattr(https, "MOUNTED", (tmp_path / "none", tmp_path))
    inside = replace(instance, in_container=True)
    assert "MLHUB_HUB_USER_CONFIG" not in environment_of("hub", inside, secrets, {})
    assert remarks(inside, secrets, {}) == []
    config.touch()
    certificate.touch()
    assert environment_of("hub", inside, secrets, {})["MLHUB_HUB_USER_CONFIG"] == str(config)
    assert "MLHUB_HUB_USER_CONFIG" not in environment_of("hub", instance, secrets, {})
    assert environment_of("proxy", inside, secrets, {})["MLHUB_PROXY_CERT_DIR"] == str(tmp_path)
    elsewhere = environment_of("proxy", instance, secrets, {})["MLHUB_PROXY_CERT_DIR"]
    assert elsewhere == str(instance.data.secrets("proxy"))
    assert ["SSL_ENABLED=true" in remark for remark in remarks(inside, secrets, {})] == [False, True]
    assert len(remarks(replace(inside, tls=True), secrets, {})) == 1


def test_no_secret_stands_in_an_environment(instance: Instance, secrets: Credentials) -> None:
    files = [file for file in instance.data.secrets("x").parent.rglob("*") if file.is_file()]
    values = {file.read_text().strip() for file in files}
    for component in service_components(instance, secrets, {}):
        assert not values & set(component.environment.values())
        assert component.environment["MLHUB_SECRETS_DIR"] == str(instance.data.secrets(component.name))


@pytest.mark.parametrize("service", SERVICES)
def test_little_of_the_persons_environment_is_passed_on(service: str, instance: Instance, secrets: Credentials) -> None:
    person = {
        "HOME": "/home/me", "LC_ALL": "C.UTF-8", "SSL_CERT_FILE": "/ca", "CLEANUP_INTERVAL_SECONDS": "60",
        "AWS_SECRET_ACCESS_KEY": "x", "HTTP_PROXY": "http://proxy", "PYTHONPATH": "/x", "MLHUB_MAX_CPU": "2",
        "MLHUB_ADMIN_PASSWORD": "admins", "MLHUB_API_TOKEN": "token", "MLHUB_HUB_DATABASE_URL": "postgresql://u:p@db/h",
    }  # fmt: skip
    passed = environment_of(service, instance, secrets, person)
    kept = {"HOME", "LC_ALL", "SSL_CERT_FILE", "CLEANUP_INTERVAL_SECONDS", "MLHUB_MAX_CPU"}
    for_the_hub = {"MLHUB_ADMIN_PASSWORD", "MLHUB_API_TOKEN", "MLHUB_HUB_DATABASE_URL"}
    assert {name for name in person if name in passed} == kept | (for_the_hub if service == "hub" else set())


def test_what_the_person_sets_on_purpose_wins_and_is_told(instance: Instance, secrets: Credentials) -> None:
    person = {"MLHUB_HUB_PUBLIC_URL": "https://hub.example", "MLHUB_SPAWNER_WORKER_CAPACITY": "3"}
    assert environment_of("hub", instance, secrets, person)["MLHUB_HUB_PUBLIC_URL"] == "https://hub.example"
    assert remarks(instance, secrets, person) == ["MLHUB_HUB_PUBLIC_URL is taken from your environment"]


def test_the_bus_of_another_deployment_is_left_alone(instance: Instance, secrets: Credentials) -> None:
    person = {"MLHUB_NATS_URL": "nats://elsewhere:4222", "MLHUB_NATS_PASSWORD": "x", "MLHUB_SECRETS_DIR": "/x"}
    for component in service_components(instance, secrets, person):
        assert "elsewhere" not in component.environment["MLHUB_NATS_URL"]
        assert component.environment["MLHUB_SECRETS_DIR"] != "/x"
        assert "MLHUB_NATS_PASSWORD" not in component.environment
    assert remarks(instance, secrets, person) == [
        f"{name} is set, but not used: this launcher runs a bus of its own"
        for name in ("MLHUB_NATS_PASSWORD", "MLHUB_NATS_URL")
    ]
