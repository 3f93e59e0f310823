"""The files for several hosts, as both versions of compose read them."""

from typing import Any

import pytest
import yaml

from tests.deploy.test_compose_file import COMMANDS
from tests.support.compose import ROOT, SERVICES, read_config

FIRST, SECOND = "10.0.0.1", "10.0.0.2"
POLICY = ("MLHUB_MAX_", "MLHUB_DEFAULT_", "DEFAULT_", "MLHUB_USER_", "MLHUB_IMAGES", "MLHUB_PROFILES", "MLHUB_KEEP_")


def read(command: tuple[str, ...], *files: str, **variables: str) -> dict[str, Any]:
    """The services that compose understands; RuntimeError where it refuses."""
    run = read_config(command, *(word for file in files for word in ("-f", str(ROOT / file))), **variables)
    if run.returncode:
        raise RuntimeError(run.stderr)
    services: dict[str, Any] = yaml.safe_load(run.stdout)["services"]
    return services


@pytest.mark.parametrize("command", COMMANDS)
def test_the_first_host_opens_to_the_others_what_they_need_and_no_more(command: tuple[str, ...]) -> None:
    plain = read(command, "compose.yaml")
    services = read(command, "compose.yaml", "compose/hosts.yaml", MLHUB_ADDRESS=FIRST, MLHUB_OTHER_HOSTS=SECOND)
    assert set(services) == {*SERVICES, "secrets"}
    for name, service in services.items():
        ports = [port for port in service.get("ports", ()) if port not in plain[name].get("ports", ())]
        private = {"nats": {"4222"}, "proxy": {"8002", "8003"}}.get(name, set())
        assert {_published(port) for port in ports} == {(FIRST, port) for port in private}, name
    proxy, worker = services["proxy"]["environment"], services["spawner-worker"]["environment"]
    assert proxy["MLHUB_PROXY_API_NETWORKS"] == f"10.113.0.0/16,{SECOND}"
    assert proxy["MLHUB_PROXY_INTERNAL_NETWORKS"] == f"10.112.0.0/24,{SECOND}"
    assert worker["MLHUB_SPAWNER_WORKER_CLOSED_TO"] == SECOND
    with pytest.raises(RuntimeError, match="MLHUB_ADDRESS"):
        read(command, "compose.yaml", "compose/hosts.yaml", MLHUB_OTHER_HOSTS=SECOND)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_worker_alone_knows_the_policy_that_the_first_host_knows(command: tuple[str, ...]) -> None:
    own = {"MLHUB_FIRST_HOST": FIRST, "MLHUB_ADDRESS": SECOND, "MLHUB_NODE": "second"}
    [worker] = read(command, "compose/worker.yaml", **own).values()
    with_all = yaml.safe_load((ROOT / "compose/worker.yaml").read_text())["services"]["spawner-worker"]["environment"]
    policy = yaml.safe_load((ROOT / "compose.yaml").read_text())["x-policy"]
    assert {name for name in with_all if name.startswith(POLICY)} == set(policy)
    here = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["spawner-worker"]["environment"]
    assert {name for name, value in here.items() if value is None} <= set(with_all)
    assert worker["environment"]["MLHUB_SPAWNER_WORKER_PUBLISH_TO"] == FIRST
    assert worker["environment"]["MLHUB_SPAWNER_WORKER_ATTACH_HOST"] == SECOND
    assert worker["network_mode"] == "host"
    assert worker["read_only"]
    assert worker["cap_drop"] == ["ALL"]
    with pytest.raises(RuntimeError, match="MLHUB_NODE"):
        read(command, "compose/worker.yaml", MLHUB_FIRST_HOST=FIRST, MLHUB_ADDRESS=SECOND)


def _published(port: Any) -> tuple[str, str]:
    """Address and port of the host: version 2 has fields, version 1 a line."""
    if isinstance(port, dict):
        return port["host_ip"], str(port["published"])
    address, published, _ = str(port).split(":")
    return address, published
