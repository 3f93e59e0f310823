"""Plain OpenSSH into a workspace."""

import platform
import subprocess
from pathlib import Path

import pytest

from tests.support.hub_client import Session
from tests.support.stack import Stack, wait_until

pytestmark = pytest.mark.timeout(180)

PASSWORD = "correct horse battery staple"


def new_key(folder: Path, name: str) -> Path:
    key = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    return key


def sign_up(stack: Stack, user: str) -> Session:
    """A user as people make one: sign-up, approval, login."""
    page = stack.visitor().post("/hub/signup", username=user, password=PASSWORD, password_again=PASSWORD)
    assert page.status_code == 200, page.text
    assert stack.session().post("/hub/approvals", name=user, decision="approve").status_code == 200
    return stack.session(user, PASSWORD)


@pytest.fixture(scope="module")
def key(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key of alice, registered by way of the page, and her workspace, which runs."""
    key = new_key(tmp_path_factory.mktemp("keys"), "alice")
    page = sign_up(stack, "alice").post(
        "/hub/ssh-keys", action="add", label="laptop", public_key=key.with_suffix(".pub").read_text()
    )
    assert page.status_code == 200
    assert "laptop" in page.text
    stack.hub.spawn("alice")
    wait_until(lambda: stack.hub.is_ready("alice"), within=90)
    wait_until(lambda: stack.ssh("alice", "true", key=key).returncode == 0, within=30, every=0.3)
    return key


def test_a_command_runs_and_its_output_comes_back(stack: Stack, key: Path) -> None:
    run = stack.ssh("alice", "hostname", key=key)
    assert (run.returncode, run.stdout.strip()) == (0, platform.node())


def test_exit_status_and_the_three_streams_are_kept_apart(stack: Stack, key: Path) -> None:
    run = stack.ssh("alice", "cat; echo problem >&2; exit 7", key=key, stdin="line 1\nline 2\n")
    assert (run.returncode, run.stdout, run.stderr) == (7, "line 1\nline 2\n", "problem\n")


def test_it_is_the_workspace_that_one_is_in(stack: Stack, key: Path) -> None:
    run = stack.ssh("alice", "echo $MLHUB_WORKSPACE; pwd", key=key)
    workspace, folder = run.stdout.split()
    assert workspace == "ws-alice-test"
    assert Path(folder).is_relative_to(stack.data.of("spawner-worker"))


def test_a_terminal_is_one(stack: Stack, key: Path) -> None:
    run = stack.ssh("alice", "tty && stty size && test -t 0 -a -t 1", key=key, options=("-tt",))
    assert run.returncode == 0
    assert run.stdout.startswith("/dev/pts/")


def test_an_interactive_shell_takes_commands(stack: Stack, key: Path) -> None:
    run = stack.ssh("alice", key=key, options=("-tt",), stdin="echo $((6 * 7))\nexit 3\n")
    assert run.returncode == 3
    assert "42" in run.stdout


def test_files_go_both_ways(stack: Stack, key: Path, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(bytes(range(256)) * 4096)
    *_, target = stack.ssh_command("alice", key=key)
    options = stack.ssh_command("alice", key=key)[1:-3]
    for words in ([str(source), f"{target}:copy"], [f"{target}:copy", str(back)]):
        command = ["scp", "-q", *options, "-P", str(stack.ssh_port), *words]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert run.returncode == 0, run.stderr
    assert back.read_bytes() == source.read_bytes()


def test_a_key_that_nobody_registered_stays_out(stack: Stack, key: Path, tmp_path: Path) -> None:
    run = stack.ssh("alice", "true", key=new_key(tmp_path, "stranger"))
    assert run.returncode == 255
    assert "Permission denied" in run.stderr


def test_another_users_workspace_stays_shut(stack: Stack, key: Path) -> None:
    stack.hub.add_user("bob")
    stack.hub.spawn("bob")
    wait_until(lambda: stack.hub.is_ready("bob"), within=90)
    assert stack.ssh("bob", "true", key=key).returncode != 0
    stack.hub.stop("bob")


def test_connecting_starts_a_stopped_workspace(stack: Stack, key: Path) -> None:
    stack.hub.stop("alice")
    wait_until(lambda: stack.hub.is_gone("alice"), within=30)
    run = stack.ssh("alice", "echo it runs", key=key, timeout=100)
    assert (run.returncode, run.stdout) == (0, "it runs\n")
    assert run.stderr, "a start that takes seconds is told on standard error"
    wait_until(lambda: stack.hub.is_ready("alice"), within=15)


def test_a_session_survives_nothing_less_than_its_workspace(stack: Stack, key: Path) -> None:
    """The worker's death ends the session at most, never the workspace."""
    before = stack.workspace_processes("ws-alice-test")
    stack.kill_and_wait("spawner-worker")
    wait_until(lambda: stack.ssh("alice", "true", key=key).returncode == 0, within=20, every=0.5)
    assert before[0].is_alive
