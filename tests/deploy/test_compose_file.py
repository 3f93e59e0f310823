"""compose.yaml as both versions of compose read it, and what holds for every service in it."""

import json
import os
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlhub_spawner_worker.settings import SpawnerWorkerSettings
from mlhub_standalone.earlier import OLD
from tests.support.compose import COMPOSE_COMMANDS, IMAGES, ROOT, SERVICES, read_config

HUB_EXAMPLE = {"MLHUB_PUBLIC_HOST": "hub.example"}

COMMANDS = [
    pytest.param(
        command,
        marks=pytest.mark.skipif(not is_there, reason=f"there is no `{' '.join(command)}` here"),
        id=" ".join(command),
    )
    for command, is_there in COMPOSE_COMMANDS.items()
]


def read(command: tuple[str, ...], folder: Path = ROOT, **variables: str) -> dict[str, Any]:
    """The file as that compose understands it."""
    run = read_config(command, "-f", str(ROOT / "compose.yaml"), "--project-directory", str(folder), **variables)
    assert run.returncode == 0, run.stderr
    assert "warn" not in run.stderr.lower(), run.stderr
    understood: dict[str, Any] = yaml.safe_load(run.stdout)
    return understood


@pytest.mark.parametrize("command", COMMANDS)
def test_both_versions_of_compose_read_it(command: tuple[str, ...]) -> None:
    services = read(command)["services"]
    assert set(services) == {*SERVICES, "secrets"}
    assert {service["image"] for service in services.values()} == set(IMAGES) - {"mlhub-workspace"}
    assert not any("build" in service for service in services.values())


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_person_sets_arrives_by_environment_and_by_file(command: tuple[str, ...], tmp_path: Path) -> None:
    settings = {
        "HUB_NAME": "lab",
        "MLHUB_PORT": "9000",
        "MLHUB_SSH_PORT": "2022",
        "MLHUB_API_TOKEN": "t" * 32,
        "MLHUB_ADMIN_PASSWORD": "a password of somebody",
        "MLHUB_MAX_CPU": "1.5",
        "MLHUB_NETWORK_POOL": "10.99.0.0/16",
        "NATS_IMAGE": "nats:2-alpine",
    }
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    for found in (read(command, ROOT, **settings), read(command, tmp_path)):
        services = found["services"]
        hub = services["hub"]["environment"]
        assert (hub["MLHUB_HUB_NAME"], str(hub["MLHUB_PORT"])) == ("lab", "9000")
        assert (hub["MLHUB_API_TOKEN"], hub["MLHUB_ADMIN_PASSWORD"]) == ("t" * 32, "a password of somebody")
        # Hub and worker hold people to the same.
        assert hub["MLHUB_MAX_CPU"] == services["spawner-worker"]["environment"]["MLHUB_MAX_CPU"] == "1.5"
        # Who may make networks there, who is let in from there to the hub's API, and to nothing else.
        assert _set_to("10.99.0.0/16", services) == {
            "MLHUB_SPAWNER_WORKER_NETWORK_POOL",
            "MLHUB_PROXY_API_NETWORKS",
            "MLHUB_PROXY_REFUSED_NETWORKS",
            "MLHUB_SSH_GATEWAY_REFUSED_NETWORKS",
        }
        assert services["nats"]["image"] == "nats:2-alpine"
        assert {service["labels"]["mlhub.deployment"] for service in services.values()} == {"lab"}
        assert [str(port) for port in _published(services["proxy"])] == ["9000"]
        assert [str(port) for port in _published(services["ssh-gateway"])] == ["2022"]
        assert not any("ports" in services[name] for name in set(services) - {"proxy", "ssh-gateway"})


@pytest.mark.parametrize("command", COMMANDS)
def test_what_nobody_set_is_not_there(command: tuple[str, ...]) -> None:
    hub = read(command)["services"]["hub"]["environment"]
    assert [hub.get(name) for name in ("MLHUB_API_TOKEN", "MLHUB_ADMIN_PASSWORD", "MLHUB_MAX_CPU")] == [None] * 3


@pytest.mark.parametrize("command", COMMANDS)
def test_every_variable_of_the_first_ml_hub_is_honoured_or_reaches_who_answers_it(command: tuple[str, ...]) -> None:
    services = read(command, ROOT, **{name: "7" for name in OLD if name != "HUB_NAME"})["services"]
    answered = {name for name, value in services["secrets"]["environment"].items() if value == "7"}
    honoured = {"HUB_NAME", "CLEANUP_INTERVAL_SECONDS", "DEFAULT_WORKSPACE_PORT", "SSL_ENABLED"}
    assert answered == OLD.keys() - honoured
    assert services["cleanup"]["environment"]["CLEANUP_INTERVAL_SECONDS"] == "7"
    assert {services[name]["environment"]["DEFAULT_WORKSPACE_PORT"] for name in ("hub", "spawner-worker")} == {"7"}
    assert {services[name]["environment"]["SSL_ENABLED"] for name in ("hub", "cleanup", "proxy")} == {"7"}


@pytest.mark.parametrize("command", COMMANDS)
def test_whatever_decides_how_workspaces_run_can_be_set(command: tuple[str, ...]) -> None:
    known = {f"MLHUB_SPAWNER_WORKER_{name.upper()}" for name in SpawnerWorkerSettings.model_fields}
    wanted = {
        name for name in known if name.endswith(("_CAPACITY", "_TIMEOUT", "_GRACE", "_LOGINS", "_IMAGE", "_PULL"))
    }
    not_docker = "MLHUB_SPAWNER_WORKER_UNREACHABLE_TIMEOUT"
    its_own = {"MLHUB_SPAWNER_WORKER_STOP_TIMEOUT", "MLHUB_SPAWNER_WORKER_DEFAULT_IMAGE", not_docker}
    worker = read(command, ROOT, **dict.fromkeys(wanted, "7"))["services"]["spawner-worker"]["environment"]
    assert {name for name in wanted if worker.get(name) != "7"} == its_own
    assert {name for name in worker if name.startswith("MLHUB_SPAWNER_WORKER_")} <= known


@pytest.mark.parametrize("file", ["compose.yaml", "compose/hosts.yaml", "compose/worker.yaml"])
def test_the_readme_tells_what_a_person_may_set(file: str) -> None:
    text = "\n".join(line for line in (ROOT / file).read_text().splitlines() if not line.lstrip().startswith("#"))
    variables = {*re.findall(r"\$\{(\w+)", text), *re.findall(r"^ +(\w+):$", text, re.MULTILINE)}
    settings = {name for name in variables if name.isupper()} - OLD.keys() | {"HUB_NAME"}
    told = set(re.findall(r"\w+", (ROOT / "README.md").read_text()))
    assert sorted(settings - told) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_secrets_are_taken_from_files_by_the_one_that_hands_them_out(command: tuple[str, ...], tmp_path: Path) -> None:
    services = read(command, MLHUB_SECRETS_DIR=str(tmp_path))["services"]
    assert [name for name, service in services.items() if str(tmp_path) in str(service)] == ["secrets"]
    assert services["secrets"]["environment"]["MLHUB_SECRETS_DIR"] == "/given"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("person", "url", "ssh"),
    [
        ({}, "http://127.0.0.1:8080", "127.0.0.1:2222"),
        (HUB_EXAMPLE | {"MLHUB_PORT": "9000"}, "http://hub.example:9000", "hub.example:2222"),
        (HUB_EXAMPLE | {"MLHUB_PORT": "443", "SSL_ENABLED": "True"}, "https://hub.example", "hub.example:2222"),
        (HUB_EXAMPLE | {"MLHUB_PORT": "9000", "MLHUB_PROXY_TLS": "on"}, "https://hub.example:9000", "hub.example:2222"),
        ({"MLHUB_SSH_PORT": "127.0.0.1:2222", "MLHUB_PORT": "443"}, "http://127.0.0.1:443", "127.0.0.1:443"),
        (HUB_EXAMPLE | {"MLHUB_HUB_PUBLIC_URL": "https://x.example"}, "https://x.example", "hub.example:2222"),
        ({"MLHUB_HUB_SSH_HOST": "ssh.example", "MLHUB_HUB_SSH_PORT": "22"}, "http://127.0.0.1:8080", "ssh.example:22"),
    ],
)
def test_the_services_know_the_addresses_that_people_type(
    command: tuple[str, ...], person: dict[str, str], url: str, ssh: str, tmp_path: Path
) -> None:
    said = '"$MLHUB_HUB_PUBLIC_URL" "$MLHUB_CLEANUP_PUBLIC_URL" "$MLHUB_HUB_SSH_HOST:$MLHUB_HUB_SSH_PORT"'
    (tmp_path / "python").write_text(f'#!/bin/sh\necho "$*" {said}\n')
    (tmp_path / "python").chmod(0o755)
    services = read(command, ROOT, **person)["services"]
    for name in ("hub", "cleanup"):
        passed = {
            variable: str(value) for variable, value in services[name]["environment"].items() if value is not None
        }
        start = subprocess.run(
            ["/bin/sh", str(ROOT / "compose/start")],
            env=passed | {"MLHUB_SERVICE": name, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert start.stdout.split() == ["-m", f"mlhub_{name}", url, url, ssh]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_service_is_fenced_in(command: tuple[str, ...]) -> None:
    found = read(command)
    for name, service in found["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert int(service["pids_limit"]) > 0, name
        assert service["labels"]["mlhub.service"] == name
        assert service.get("restart", "no") == ("no" if name == "secrets" else "unless-stopped"), name
        assert service.get("privileged", False) is False, name
    sockets = [name for name, service in found["services"].items() if "docker.sock" in str(service)]
    assert sockets == ["spawner-worker"]
    # Only these two will be on users' networks, and they pass nothing on between them.
    routes_nothing = {
        name for name, service in found["services"].items() if "net.ipv4.ip_forward" in str(service.get("sysctls"))
    }
    assert routes_nothing == {"proxy", "ssh-gateway"}


@pytest.mark.parametrize("command", COMMANDS)
def test_only_those_with_published_ports_leave_the_internal_network(command: tuple[str, ...]) -> None:
    found = read(command)
    assert found["networks"]["internal"]["internal"] is True
    on = {name: set(service.get("networks", ())) for name, service in found["services"].items()}
    assert {name for name, networks in on.items() if "public" in networks} == {"proxy", "ssh-gateway"}
    assert all("internal" in networks for name, networks in on.items() if name != "secrets")


def _set_to(value: str, services: dict[str, Any]) -> set[str]:
    """The variables of all services that have this value."""
    everything = [item for service in services.values() for item in service.get("environment", {}).items()]
    return {name for name, found in everything if found == value}


def _published(service: dict[str, Any]) -> list[object]:
    """The ports of this host; version 1 keeps them as text."""
    return [port["published"] if isinstance(port, dict) else port.split(":")[0] for port in service["ports"]]


@pytest.mark.parametrize(
    ("service", "answer", "code"), [("standalone", 200, 0), ("standalone", 503, 1), ("hub", 200, 0)]
)
def test_a_container_knows_whether_it_works_also_where_people_come_by_https(
    service: str, answer: int, code: int, tmp_path: Path
) -> None:
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(answer)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        instance = {"port": 8080, "tls": True, "internal": {"hub": 1, "hub-api": server.server_port}}
        (tmp_path / "instance.json").write_text(json.dumps(instance, indent=2))
        person = {"MLHUB_STANDALONE_DATA_DIR": str(tmp_path), "MLHUB_HUB_LISTEN_PORT": str(server.server_port)}
        run = subprocess.run(
            ["bash", str(ROOT / "compose/healthy")],
            env={"MLHUB_SERVICE": service, "PATH": os.environ["PATH"]} | person,
            timeout=30,
            check=False,
        )
    assert run.returncode == code
    assert asked == [{"standalone": "/hub/api", "hub": "/hub/health"}[service]]
