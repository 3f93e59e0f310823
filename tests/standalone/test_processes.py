import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mlhub_standalone import processes
from mlhub_standalone.processes import Identity
from tests.support.stack import wait_until

MARK = "MLHUB_TEST_MARK"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"


@pytest.fixture
def started() -> Iterator[list["subprocess.Popen[str]"]]:
    running: list[subprocess.Popen[str]] = []
    yield running
    for process in running:
        process.kill()
        process.communicate()


def start(started: list["subprocess.Popen[str]"], code: str, **environment: str) -> Identity:
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    started.append(process)
    assert process.stdout is not None
    process.stdout.readline()
    identity = Identity.of(process.pid)
    assert identity is not None
    return identity


def test_a_pid_given_anew_is_not_the_same_process(started: list["subprocess.Popen[str]"]) -> None:
    process = start(started, "import time; print(flush=True); time.sleep(60)")
    stranger = replace(process, started=process.started - 1)
    assert process.is_alive
    assert not stranger.is_alive
    stranger.send(signal.SIGKILL)
    assert processes.end([stranger], within=1) == 0
    assert process.is_alive


def test_a_process_that_nobody_has_waited_for_is_dead(started: list["subprocess.Popen[str]"]) -> None:
    process = start(started, "print(flush=True); input()")
    stdin = started[0].stdin
    assert stdin is not None
    stdin.write("end\n")
    stdin.flush()
    wait_until(lambda: not process.is_alive)
    assert started[0].returncode is None


def test_ending_kills_what_does_not_listen(started: list["subprocess.Popen[str]"]) -> None:
    deaf, polite = start(started, DEAF), start(started, "import time; print(flush=True); time.sleep(60)")
    assert processes.end([deaf, polite, deaf], within=0.3) == 2
    assert not deaf.is_alive
    assert not polite.is_alive


def test_a_mark_is_found_in_children_with_a_session_of_their_own(started: list["subprocess.Popen[str]"]) -> None:
    child = "import time; time.sleep(60)"
    code = (
        "import subprocess, sys; print(flush=True); "
        f"subprocess.run([sys.executable, '-c', {child!r}], start_new_session=True)"
    )
    parent = start(started, code, **{MARK: "one"})
    other = start(started, "import time; print(flush=True); time.sleep(60)", **{MARK: "one and more"})
    wait_until(lambda: len(processes.marked(MARK, "one")) == 2)
    found = processes.marked(MARK, "one")
    assert parent in found
    assert other not in found
    assert processes.end(found, within=20) == 2
    assert other.is_alive


def test_a_pid_file_of_another_program_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "x.pid"
    file.write_text(f"{os.getpid()}\n")
    assert processes.named(file) == []
    assert processes.named(tmp_path / "missing.pid") == []


def test_a_pid_file_of_a_program_that_works_beside_it_is_believed(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    file = tmp_path / "x.pid"
    with subprocess.Popen(["sleep", "60"], cwd=tmp_path / "inside", env={}) as child:
        try:
            file.write_text(f"{child.pid}\n")
            assert [found.pid for found in processes.named(file)] == [child.pid]
        finally:
            child.kill()
