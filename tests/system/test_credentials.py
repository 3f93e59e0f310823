"""No credential, no entry: every listener of the stack refuses whoever brings none."""

import json
import os
import socket
import stat
import subprocess
from pathlib import Path

import httpx
import pytest

from mlhub_standalone.data_dir import read_json
from mlhub_standalone.ports import INTERNAL
from tests.support.stack import Stack

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def ports(quick_stack: Stack) -> dict[str, int]:
    ports: dict[str, int] = read_json(quick_stack.data.instance)["internal"]
    return ports


def test_the_bus_wants_a_login(ports: dict[str, int]) -> None:
    with socket.create_connection(("127.0.0.1", ports["nats"]), 5) as connection:
        connection.settimeout(20)
        assert json.loads(connection.recv(4096).removeprefix(b"INFO "))["auth_required"]
        connection.sendall(b'CONNECT {"verbose": true}\r\nSUB test.> 1\r\nPING\r\n')
        assert b"Authorization Violation" in connection.recv(4096)


def test_attach_takes_the_gateways_key_alone(quick_stack: Stack, ports: dict[str, int], tmp_path: Path) -> None:
    own = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", own], check=True)
    gateways = quick_stack.data.secrets("ssh-gateway") / "attach_ed25519_key"
    for key, refused in ((own, True), (gateways, False)):
        run = subprocess.run(
            ["ssh", "-F", "none", "-i", key, "-p", str(ports["attach"]), "-o", "IdentitiesOnly=yes",
             "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path}/hosts", "-o", "BatchMode=yes",
             "no-such-workspace@127.0.0.1", "true"],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert run.returncode != 0
        assert ("Permission denied" in run.stderr) is refused, run.stderr


@pytest.mark.parametrize("service", ["spawner-worker", "proxy", "cleanup", "ssh-gateway"])
def test_metrics_want_the_internal_token(quick_stack: Stack, ports: dict[str, int], service: str) -> None:
    url = f"http://127.0.0.1:{ports[service]}/metrics"
    token = (quick_stack.data.secrets(service) / "MLHUB_INTERNAL_TOKEN").read_text()
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert httpx.get(url, headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_haproxys_socket_is_its_owners(quick_stack: Stack) -> None:
    folder = quick_stack.data.of("proxy")
    sockets = [path for path in folder.rglob("*") if path.is_socket()]
    assert sockets
    assert stat.S_IMODE(quick_stack.data.root.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in sockets} == {0}


def test_the_hubs_api_wants_a_token_on_every_way_in(quick_stack: Stack, ports: dict[str, int]) -> None:
    for port in (quick_stack.port, ports["hub-api"], ports["hub"]):
        url = f"http://127.0.0.1:{port}/hub/api/users"
        assert httpx.get(url).status_code == 403
        assert httpx.get(url, headers={"Authorization": "token wrong"}).status_code == 403


def test_the_frontend_for_workspaces_leads_to_the_api_alone(ports: dict[str, int]) -> None:
    for path in ("/hub/login", "/hub/home", "/", "/user/alice/", "/hub/api/../login", "/hub/api/%2e%2e/login"):
        with socket.create_connection(("127.0.0.1", ports["hub-api"]), 5) as connection:
            # By hand: a client would tidy the path up.
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            assert b" 403 " in connection.recv(200).splitlines()[0], path


def test_the_admins_pages_of_the_clean_up_want_an_admin(quick_stack: Stack) -> None:
    for path in ("users", "expired"):
        url = f"{quick_stack.url}/services/cleanup-service/{path}"
        assert httpx.get(url, headers={"Authorization": "token wrong"}).status_code in {302, 401, 403}
        assert httpx.post(url).status_code in {302, 401, 403}


def test_all_inner_ports_listen_on_loopback_alone(quick_stack: Stack, ports: dict[str, int]) -> None:
    listening = listeners()
    assert set(ports) == set(INTERNAL)
    for name, port in [*ports.items(), ("web", quick_stack.port), ("ssh", quick_stack.ssh_port)]:
        assert listening.get(port) == {"0100007F"}, name


def listeners() -> dict[int, set[str]]:
    """Addresses, as the kernel writes them, by the port that is listened on."""
    found: dict[int, set[str]] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not os.path.exists(table):
            continue
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A":
                address, port = local.rsplit(":", 1)
                found.setdefault(int(port, 16), set()).add(address)
    return found
