"""Ending the stack, and finding it again as it was."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlhub_shared.contracts.workspace import Phase, Reason
from mlhub_standalone.processes import Identity
from tests.support.stack import FAKE_SERVER, HUB, Stack, wait_until

pytestmark = pytest.mark.timeout(180)

NAMES = {f"ws-alice-{HUB}", f"ws-alice-{HUB}-gpu1"}


@pytest.fixture(scope="module")
def idle_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that the tests start and end as they like."""
    stack = Stack(tmp_path_factory.mktemp("own"), MLHUB_SPAWNER_WORKER_COMMAND=FAKE_SERVER)
    try:
        yield stack
    finally:
        stack.wipe()


@pytest.fixture
def own_stack(idle_stack: Stack) -> Stack:
    """The same, up, with two workspaces that run."""
    stack = idle_stack
    if not stack.is_up():
        stack.up()
    stack.hub.add_user("alice")
    for server in ("", "gpu1"):
        stack.hub.spawn("alice", server)
    wait_until(lambda: ready(stack), within=30)
    return stack


def ready(stack: Stack) -> bool:
    return stack.hub.is_ready("alice") and stack.hub.is_ready("alice", "gpu1")


def answers(stack: Stack, server: str) -> str:
    """The pid of the workspace that answers, through the public port."""
    answer = stack.hub.workspace("GET", "alice", "api", server)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_ctrl_c_stops_everything_and_the_next_start_leaves_it_so(own_stack: Stack) -> None:
    stack = own_stack
    homes = list(stack.data.of("spawner-worker").glob("workspaces/*/home"))
    for home in homes:
        (home / "kept.txt").write_text("still here")
    assert stack.end(signal.SIGINT) == 0
    assert stack.processes() == []
    assert stack.workspace_processes() == []
    assert stack.run("status").returncode == 3
    before = stack.data.instance.read_text()
    stack.up()
    assert stack.data.instance.read_text() == before
    records = stack.bus.records()
    assert set(records) == NAMES
    assert {(record.phase, record.reason) for record in records.values()} == {(Phase.STOPPED, Reason.SHUTDOWN)}
    assert stack.workspace_processes() == []
    wait_until(lambda: stack.hub.is_gone("alice") and stack.hub.is_gone("alice", "gpu1"), within=15)
    stack.hub.spawn("alice", "gpu1")
    wait_until(lambda: stack.hub.is_ready("alice", "gpu1"), within=30)
    assert [home.joinpath("kept.txt").read_text() for home in homes] == ["still here"] * 2


def test_kept_workspaces_run_on_and_are_found_again(own_stack: Stack) -> None:
    stack = own_stack
    before = {process.pid for process in stack.workspace_processes()}
    assert stack.run("down", "--keep-workspaces").returncode == 0
    assert stack.launcher.wait(10) == 0
    assert stack.processes() == []
    assert {process.pid for process in stack.workspace_processes()} == before
    stack.up()
    wait_until(lambda: ready(stack), within=20)
    assert {int(answers(stack, server)) for server in ("", "gpu1")} <= before
    assert {process.pid for process in stack.workspace_processes()} == before


def test_kept_workspaces_are_found_again_without_the_store_of_the_bus(own_stack: Stack) -> None:
    stack = own_stack
    before = {process.pid for process in stack.workspace_processes()}
    assert stack.run("down", "--keep-workspaces").returncode == 0
    shutil.rmtree(stack.data.nats)
    stack.up()
    wait_until(lambda: ready(stack), within=30)
    assert {int(answers(stack, server)) for server in ("", "gpu1")} <= before
    assert set(stack.bus.records()) == NAMES
    assert {process.pid for process in stack.workspace_processes()} == before
    stack.hub.stop("alice", "gpu1")
    wait_until(lambda: len(stack.workspace_processes()) < len(before), within=20)
    assert stack.hub.is_ready("alice")


@pytest.mark.chaos
def test_a_killed_launcher_leaves_all_running_and_the_next_takes_over(own_stack: Stack) -> None:
    stack = own_stack
    parts, workspaces = set(stack.processes()), set(stack.workspace_processes())
    pids = {server: answers(stack, server) for server in ("", "gpu1")}
    ports = stack.data.instance.read_text()
    stack.kill_launcher()
    assert answers(stack, "gpu1")
    assert set(stack.processes()) == parts
    assert stack.run("status").returncode == 3
    stack.up()
    assert "that an earlier run had left behind" in stack.output.read_text()
    assert not [process for process in parts if process.is_alive]
    assert set(stack.workspace_processes()) == workspaces
    # The workspaces know the ports of the hub: those must not have changed.
    assert stack.data.instance.read_text() == ports
    assert "is taken by another program" not in stack.output.read_text()
    wait_until(lambda: ready(stack), within=20)
    assert {server: answers(stack, server) for server in ("", "gpu1")} == pids


@pytest.mark.chaos
def test_down_ends_what_a_killed_launcher_left(own_stack: Stack) -> None:
    stack = own_stack
    stack.kill("hub")
    stack.kill_launcher()
    down = stack.run("down")
    assert down.returncode == 0
    assert down.stdout.count("Ended") == 1
    assert "of parts" in down.stdout
    assert "of workspaces" in down.stdout
    assert stack.processes() == []
    assert stack.workspace_processes() == []


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"MLHUB_HUB_WORKSPACES": "bogus"}, "MLHUB_HUB_WORKSPACES: Input should be 'self-service'"),
        ({"MLHUB_API_TOKEN": "too-short"}, "MLHUB_API_TOKEN must have at least 32 characters"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_wrong_settings_end_the_start_at_once(tmp_path: Path, setting: dict[str, str], sentence: str) -> None:
    stack = Stack(tmp_path, **setting)
    try:
        run = stack.run(
            "up",
            "--backend",
            "process",
            "--port",
            str(stack.port),
            "--ssh-port",
            str(stack.ssh_port),
            "--hub-name",
            HUB,
        )
        assert run.returncode == 2
        assert run.stderr.count(sentence) == 1
        assert sentence not in run.stdout
        assert "Traceback" not in run.stderr
        assert "again" not in run.stdout
        assert setting.get("MLHUB_API_TOKEN", "Traceback") not in run.stdout + run.stderr
        assert stack.processes() == []
    finally:
        stack.wipe()


def test_nobody_else_reads_what_the_parts_keep(own_stack: Stack) -> None:
    stack = own_stack
    database = list(stack.data.of("hub").glob("jupyterhub.sqlite*"))
    assert database
    assert {file.stat().st_mode & 0o077 for file in [*database, stack.data.secrets("hub").parent]} == {0}
    worker = stack.process("spawner-worker")
    assert worker is not None
    umask = next(
        line for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines() if line.startswith("Umask")
    )
    assert int(umask.split()[1], 8) != 0o077


def test_a_second_ctrl_c_hurries(own_stack: Stack) -> None:
    stack = own_stack
    worker = stack.process("spawner-worker")
    assert worker is not None
    haproxy = int((stack.data.of("proxy") / "haproxy.pid").read_text())
    assert haproxy in {process.pid for process in stack.processes()}
    # One that can't stop anything: only the hurry ends this soon.
    worker.send(signal.SIGSTOP)
    stack.launcher.send_signal(signal.SIGINT)
    wait_until(lambda: "Ending ML Hub" in stack.output.read_text())
    assert stack.end(signal.SIGINT, within=15) == 0
    assert stack.processes() == []
    assert Identity.of(haproxy) is None
    assert stack.workspace_processes() == []
