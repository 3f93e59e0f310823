"""Two hosts, each with its engine and its worker: one line, one proxy, one way in."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine_cli import everything_labelled, labelled, missing, new_hub, wipe
from tests.support.second_host import NODE, SecondHost, second_host
from tests.support.stack import ADMIN, Stack, wait_until

pytestmark = pytest.mark.timeout(300)

FIRST = "local"
IMAGE = "debian:bookworm-slim"
NAME, POOL = new_hub()
READY_WITHIN = 60.0

_SERVER = (
    "use IO::Socket::INET; $SIG{TERM} = sub { exit };"
    "$s = IO::Socket::INET->new(Listen => 9, LocalPort => 8888, ReuseAddr => 1) or die $!;"
    "while (1) { $c = $s->accept or next; $h = $ENV{HOSTNAME}; sysread $c, $_, 9999; $l = length $h;"
    'print $c "HTTP/1.1 200 OK\\r\\nContent-Length: $l\\r\\nConnection: close\\r\\n\\r\\n$h" }'
)
"""Answers whatever is asked with the name of its container."""

_KINDS = (("ps", "--all"), ("network", "ls"), ("volume", "ls"))
_LABELLED = [(*kind, "--quiet", "--filter", f"label=mlhub.origin={NAME}") for kind in _KINDS]
"""Commands that list what was made for users."""

PROFILES = {
    "profiles": [{"name": "default", "image": IMAGE, "command": ["perl", "-e", _SERVER], "home": "/root", "user": "0"}]
}


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecondHost]:
    """The second host, with the image and no worker yet."""
    if (reason := missing("debian")) is not None:
        pytest.skip(reason)
    with second_host(tmp_path_factory.mktemp("far") / "host") as host:
        host.load(IMAGE)
        yield host


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, far: SecondHost) -> Iterator[Stack]:
    """The first host, with room for one workspace and everything that is there but once."""
    folder = tmp_path_factory.mktemp("near")
    profiles = folder / "profiles.yaml"
    profiles.write_text(json.dumps(PROFILES))
    settings = {
        "MLHUB_PROFILES_FILE": str(profiles),
        "MLHUB_SPAWNER_WORKER_NETWORK_POOL": POOL,
        "MLHUB_SPAWNER_WORKER_CLOSED_TO": far.link.second,
        "MLHUB_PROXY_PROBE_HOST": "0.0.0.0",  # noqa: S104  (open to those named in the next line)
        "MLHUB_PROXY_INTERNAL_NETWORKS": f"127.0.0.0/8,{far.link.second}",
        "MLHUB_PROXY_API_NETWORKS": f"127.0.0.0/8,{POOL},{far.link.second}",
    }
    stack = Stack(folder, "--backend", "docker", "--hub-name", NAME, "--capacity", "1", **settings)
    try:
        yield stack.up(within=120)
    finally:
        stack.wipe()
        wipe(NAME)


@pytest.fixture(scope="module")
def key(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key that the gateway takes for the admin's."""
    key = tmp_path_factory.mktemp("key") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    public = key.with_suffix(".pub").read_text()
    assert stack.session().post("/hub/ssh-keys", action="add", label="laptop", public_key=public).status_code == 200
    return key


@pytest.fixture(scope="module")
def hosts(stack: Stack, far: SecondHost) -> SecondHost:
    """Both at work, with a workspace each: `near` was there before the second host, `far` finds the first one full."""
    start(stack, "near")
    profiles = stack.environment()["MLHUB_PROFILES_FILE"]
    far.join(
        stack,
        MLHUB_HUB_NAME=NAME,
        MLHUB_PROFILES_FILE=profiles,
        MLHUB_SPAWNER_WORKER_NETWORK_POOL=POOL,
        MLHUB_SPAWNER_WORKER_CAPACITY="1",
    )
    wait_until(lambda: nodes(stack) == {FIRST: "up", NODE: "up"}, within=30, every=0.2)
    start(stack, "far")
    return far


def name_of(server: str) -> str:
    return f"ws-{ADMIN}-{NAME}-{server}"


def start(stack: Stack, server: str) -> None:
    answer = stack.hub.spawn(ADMIN, server)
    assert answer.status_code in {201, 202}, answer.text
    wait_until(lambda: stack.hub.is_ready(ADMIN, server), within=READY_WITHIN, every=0.2)


def stop(stack: Stack, server: str) -> None:
    assert stack.hub.stop(ADMIN, server).status_code in {202, 204}
    wait_until(lambda: stack.hub.is_gone(ADMIN, server), within=60, every=0.2)


def nodes(stack: Stack) -> dict[str, str]:
    return {node["node"]: node["state"] for node in stack.hub.insist("GET", "/nodes").json()}


def shown(stack: Stack, server: str) -> dict[str, Any]:
    """What the hub's REST API says of the workspace itself."""
    return dict(stack.hub.server(ADMIN, server).get("workspace") or {})


def node_of(stack: Stack, server: str) -> str | None:
    return shown(stack, server).get("node")


def status_of(stack: Stack, server: str) -> str | None:
    return shown(stack, server).get("status")


def answers(stack: Stack, server: str) -> bool:
    """The workspace itself answers at the proxy's public port."""
    answer = stack.hub.workspace("GET", ADMIN, "api", server)
    return (answer.status_code, answer.text) == (200, name_of(server))


def test_who_finds_the_first_host_full_is_taken_by_the_second(stack: Stack, hosts: SecondHost) -> None:
    assert (node_of(stack, "near"), node_of(stack, "far")) == (FIRST, NODE)
    assert labelled("container", NAME) == [name_of("near")]
    assert hosts.docker("ps", "--format", "{{.Names}}").split() == [name_of("far")]


def test_both_answer_through_the_one_proxy(stack: Stack, hosts: SecondHost) -> None:
    assert answers(stack, "near")
    assert answers(stack, "far")


def test_ssh_opens_a_shell_on_either_host(stack: Stack, hosts: SecondHost, key: Path) -> None:
    wait_until(lambda: stack.ssh(f"{ADMIN}--near", "true", key=key).returncode == 0, within=30, every=0.3)
    for server in ("near", "far"):
        run = stack.ssh(f"{ADMIN}--{server}", "hostname; exit 7", key=key)
        assert (run.returncode, run.stdout.strip()) == (7, name_of(server)), run.stderr
    run = stack.ssh(f"{ADMIN}--far", key=key, options=("-tt",), stdin="echo $((6 * 7))\nexit 3\n")
    assert run.returncode == 3
    assert "42" in run.stdout


def test_a_workspace_of_the_second_host_reaches_the_hubs_api_and_nothing_else_of_the_first(
    stack: Stack, hosts: SecondHost, key: Path
) -> None:
    internal = stack.status()["instance"]["internal"]
    api, probe = internal["hub-api"], internal["probe"]
    asked = [f"mlhub {api} /hub/api", f"mlhub {api} /hub/login", f"mlhub {probe} /api", f"mlhub {hosts.bus_port} /"]
    assert ask(stack, "far", key, *asked) == ["200", "403", "shut", "shut"]


def test_published_ports_are_shut_to_workspaces_that_leave_under_the_proxys_address(
    stack: Stack, hosts: SecondHost, key: Path
) -> None:
    address, port = hosts.docker("port", name_of("far"), "8888/tcp").split(":")
    assert address == hosts.link.second
    assert ask(stack, "near", key, f"{address} {port} /", "127.0.0.1 8888 /") == ["shut", "200"]


def ask(stack: Stack, server: str, key: Path, *asked: str) -> list[str]:
    """The status that a workspace gets for each ADDRESS PORT PATH, or that nobody answers."""
    one = 'exec 3<>/dev/tcp/$0/$1 && printf "GET $2 HTTP/1.0\\r\\n\\r\\n" >&3 && read -r _ status _ <&3 && echo $status'
    lines = [f"timeout 3 bash -c '{one}' {place} 2>/dev/null || echo shut" for place in asked]
    run = stack.ssh(f"{ADMIN}--{server}", "; ".join(lines), key=key)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_who_has_files_on_a_host_returns_there(stack: Stack, hosts: SecondHost, key: Path) -> None:
    run = stack.ssh(f"{ADMIN}--far", "echo still here > ~/kept.txt", key=key)
    assert run.returncode == 0, run.stderr
    stop(stack, "near")
    stop(stack, "far")
    assert hosts.docker("volume", "ls", "--quiet").split() == [name_of("far")]
    # There is room on both now.
    start(stack, "far")
    assert node_of(stack, "far") == NODE
    assert stack.ssh(f"{ADMIN}--far", "cat ~/kept.txt", key=key).stdout == "still here\n"
    start(stack, "near")
    assert node_of(stack, "near") == FIRST


def test_a_host_whose_worker_is_away_has_unreachable_workspaces_not_dead_ones(
    stack: Stack, hosts: SecondHost, key: Path
) -> None:
    started = hosts.docker("container", "inspect", name_of("far"), "--format", "{{.State.StartedAt}}")
    hosts.kill()
    wait_until(lambda: status_of(stack, "far") == "unreachable", within=60, every=0.3)
    server = stack.hub.server(ADMIN, "far")
    assert (server["ready"], server["stopped"]) == (False, False)
    assert f"machine {NODE} does not answer" in server["workspace"]["message"]
    assert nodes(stack) == {FIRST: "up", NODE: "away"}
    assert stack.hub.is_ready(ADMIN, "near")
    assert answers(stack, "far"), "only the worker is away, and nobody took the route"
    hosts.start()
    wait_until(lambda: stack.hub.is_ready(ADMIN, "far"), within=30, every=0.2)
    assert status_of(stack, "far") == "ready"
    assert hosts.docker("container", "inspect", name_of("far"), "--format", "{{.State.StartedAt}}") == started
    wait_until(lambda: stack.ssh(f"{ADMIN}--far", "true", key=key).returncode == 0, within=30, every=0.3)


def test_a_host_that_is_emptied_takes_nobody(stack: Stack, hosts: SecondHost) -> None:
    drained = stack.hub.insist("PATCH", f"/nodes/{NODE}", json={"draining": True})
    assert drained.json()["state"] == "draining"
    assert answers(stack, "far"), "what runs runs on"
    stop(stack, "far")
    # The first host is full, and the second one has room, but not for anybody.
    for server in ("more", "far"):
        assert stack.hub.spawn(ADMIN, server).status_code == 202
    wait_until(lambda: status_of(stack, "more") == status_of(stack, "far") == "queued", within=30, every=0.2)
    with pytest.raises(TimeoutError):
        wait_until(lambda: hosts.docker("ps", "--all", "--quiet"), within=3, every=0.5)
    stop(stack, "near")
    wait_until(lambda: stack.hub.is_ready(ADMIN, "more"), within=READY_WITHIN, every=0.2)
    assert node_of(stack, "more") == FIRST
    assert status_of(stack, "far") == "queued"
    assert stack.hub.insist("PATCH", f"/nodes/{NODE}", json={"draining": False}).json()["state"] == "up"
    wait_until(lambda: stack.hub.is_ready(ADMIN, "far"), within=READY_WITHIN, every=0.2)
    assert node_of(stack, "far") == NODE


def test_of_what_is_deleted_nothing_is_left_on_either_host(stack: Stack, hosts: SecondHost) -> None:
    for server in ("near", "far", "more"):
        assert stack.hub.delete(ADMIN, server).status_code in {202, 204}
    wait_until(lambda: not everything_labelled(NAME), within=60, every=0.3)
    wait_until(lambda: not [one for words in _LABELLED for one in hosts.docker(*words).split()], within=60, every=0.3)
