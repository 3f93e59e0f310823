"""`mlhub up --backend docker`: services as processes of this machine, every workspace a container."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine_cli import everything_labelled, inspect, labelled, missing, new_hub, wipe
from tests.support.kernel import run_cell
from tests.support.stack import ADMIN, Stack, wait_until

pytestmark = pytest.mark.timeout(300)

READY_WITHIN = 120.0
NAME, POOL = new_hub()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An instance whose workspaces are containers, and of which nothing is left afterwards."""
    if (reason := missing("mlhub-workspace")) is not None:
        pytest.skip(reason)
    options = ("--backend", "docker", "--hub-name", NAME)
    stack = Stack(tmp_path_factory.mktemp("docker"), *options, MLHUB_SPAWNER_WORKER_NETWORK_POOL=POOL)
    try:
        yield stack.up(within=120)
    finally:
        stack.wipe()
        wipe(NAME)


@pytest.fixture(scope="module")
def lab(stack: Stack) -> str:
    """The container of the admin's workspace `lab`, which runs."""
    answer = stack.hub.spawn(ADMIN, "lab", user_options={"cpu_limit": 0.5, "mem_limit": "512M"})
    assert answer.status_code in {201, 202}, answer.text
    wait_until(lambda: stack.hub.is_ready(ADMIN, "lab"), within=READY_WITHIN)
    return f"ws-{ADMIN}-{NAME}-lab"


def test_it_says_what_runs_the_workspaces(stack: Stack, lab: str) -> None:
    assert "workspaces run as containers, as asked for" in stack.output.read_text()
    assert "nothing keeps users apart" not in stack.output.read_text()
    assert lab in stack.run("status").stdout
    (container,) = stack.status()["containers"]
    assert (container["name"], container["user"], container["state"]) == (lab, ADMIN, "running")
    assert "mlhub-workspace is there" in stack.run("doctor").stdout


def test_a_workspace_is_a_container_with_its_limits(stack: Stack, lab: str) -> None:
    made = inspect(lab)
    assert (made["HostConfig"]["NanoCpus"], made["HostConfig"]["Memory"]) == (500_000_000, 512 * 1024**2)
    assert run_cell(stack.hub, ADMIN, "import socket; print(socket.gethostname(), 6 * 7)", server="lab").split() == [
        made["Config"]["Hostname"],
        "42",
    ]


def test_a_workspace_reaches_the_hubs_api_and_nothing_else_of_this_machine(stack: Stack, lab: str) -> None:
    (network,) = inspect(lab)["NetworkSettings"]["Networks"].values()
    code = f"""
import os, urllib.request
from urllib.parse import urlsplit
def ask(url):
    try:
        return urllib.request.urlopen(url, timeout=3).status
    except OSError as error:
        return getattr(error, "code", "shut")
api = os.environ["JUPYTERHUB_API_URL"]
port = urlsplit(api).port
print(ask(api), ask(f"http://mlhub:{{port}}/hub/login"), ask("http://{network["Gateway"]}:{stack.port}/hub/login"))
"""
    assert run_cell(stack.hub, ADMIN, code, server="lab").split() == ["200", "403", "shut"]


def test_the_hubs_api_for_workspaces_is_for_no_one_else(stack: Stack, lab: str) -> None:
    """It listens on every address of this machine, and answers the users' networks alone."""
    (network,) = inspect(lab)["NetworkSettings"]["Networks"].values()
    ours = labelled("network", NAME)[0]
    code = (
        f"import urllib.request as r; print(r.urlopen('http://{network['Gateway']}:{_api_port(stack)}/hub/api').status)"
    )
    assert run_cell(stack.hub, ADMIN, code, server="lab").strip() == "200"
    stranger = subprocess.run(
        ["docker", "run", "--rm", "mlhub-workspace", "python3", "-c", code],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert stranger.returncode != 0
    assert "200" not in stranger.stdout, ours


def test_ssh_opens_a_shell_in_it(stack: Stack, lab: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    public = key.with_suffix(".pub").read_text()
    page = stack.session().post("/hub/ssh-keys", action="add", label="laptop", public_key=public)
    assert page.status_code == 200
    login = f"{ADMIN}--lab"
    wait_until(lambda: stack.ssh(login, "true", key=key).returncode == 0, within=30, every=0.3)
    run = stack.ssh(login, "hostname; exit 7", key=key)
    assert (run.returncode, run.stdout.strip()) == (7, inspect(lab)["Config"]["Hostname"])


def test_what_is_stopped_comes_back_with_its_files(stack: Stack, lab: str) -> None:
    run_cell(stack.hub, ADMIN, "open('kept.txt', 'w').write('still here')", server="lab")
    assert stack.hub.stop(ADMIN, "lab").status_code in {202, 204}
    wait_until(lambda: stack.hub.is_gone(ADMIN, "lab"), within=60)
    wait_until(lambda: not labelled("container", NAME), within=30)
    assert labelled("volume", NAME) == [lab]
    stack.hub.spawn(ADMIN, "lab")
    wait_until(lambda: stack.hub.is_ready(ADMIN, "lab"), within=READY_WITHIN)
    assert run_cell(stack.hub, ADMIN, "print(open('kept.txt').read())", server="lab").strip() == "still here"


def test_kept_workspaces_are_found_again_and_a_plain_end_stops_them(stack: Stack, lab: str) -> None:
    started = inspect(lab)["State"]["StartedAt"]
    assert stack.run("down", "--keep-workspaces", timeout=120).returncode == 0
    assert inspect(lab)["State"]["StartedAt"] == started
    assert "1 container of kept workspaces runs" in stack.run("status").stdout
    stack.up("--backend", "auto", within=120)
    assert "as they did before" in stack.output.read_text()
    wait_until(lambda: stack.hub.is_ready(ADMIN, "lab"), within=30)
    assert inspect(lab)["State"]["StartedAt"] == started
    assert run_cell(stack.hub, ADMIN, "print(6 * 7)", server="lab").strip() == "42"
    assert stack.end(within=90) == 0
    assert labelled("container", NAME) == []
    assert labelled("volume", NAME) == [lab]
    stack.up(within=120)


def test_what_a_killed_launcher_left_is_ended_by_down(stack: Stack, lab: str) -> None:
    stack.hub.spawn(ADMIN, "lab")
    wait_until(lambda: stack.hub.is_ready(ADMIN, "lab"), within=READY_WITHIN)
    stack.kill_launcher()
    down = stack.run("down", timeout=120)
    assert "1 container of workspaces" in down.stdout
    assert labelled("container", NAME) == []
    stack.up(within=120)
    wait_until(lambda: stack.hub.is_gone(ADMIN, "lab"), within=30)


def test_of_what_is_deleted_nothing_is_left(stack: Stack, lab: str) -> None:
    assert stack.hub.delete(ADMIN, "lab").status_code in {202, 204}
    wait_until(lambda: not everything_labelled(NAME), within=60)


def _api_port(stack: Stack) -> int:
    return int(stack.status()["instance"]["internal"]["hub-api"])
