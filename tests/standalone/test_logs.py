import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlhub_standalone.data_dir import DataDir
from mlhub_standalone.errors import LauncherError
from mlhub_standalone.log_files import LogFile
from mlhub_standalone.logs import readable, show
from tests.support.stack import wait_until


def write(log: LogFile, text: str) -> None:
    with log.open() as output:
        output.write(text.encode())


def test_each_start_begins_a_new_file_and_keeps_the_last(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "hub.log")
    for text in ("first\n", "second\n", "third\n"):
        log.begin()
        write(log, text)
    assert log.path.read_text() == "third\n"
    assert log.previous.read_text() == "second\n"


def test_a_log_is_bounded_while_a_process_writes_it(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "hub.log", most_bytes=100)
    code = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"
    with log.open() as output:
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=output, text=True)
    assert process.stdin is not None
    process.stdin.write("x" * 200 + "\n")
    process.stdin.flush()
    wait_until(lambda: log.path.stat().st_size > 200)
    log.bound()
    process.stdin.write("after\n")
    process.stdin.close()
    process.wait(10)
    assert log.path.read_bytes() == b"after\n"
    assert log.previous.stat().st_size == 201


def test_the_tail_is_the_last_lines(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "hub.log")
    write(log, "1\n2\n3\n")
    assert log.tail(2) == ["2", "3"]
    assert LogFile(tmp_path / "none.log").tail(2) == []


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("[7] 2026/01/02 [INF] Server is ready", "[7] 2026/01/02 [INF] Server is ready"),
        (
            '{"event": "bus.error", "level": "warning", "timestamp": "2026-01-02T03:04:05.678901Z",'
            ' "error": "away", "service": "hub"}',
            "03:04:05.678 warning bus.error error=away",
        ),
        ('{"a": 1}', '{"a": 1}'),
        ("[1, 2]", "[1, 2]"),
    ],
)
def test_lines_are_shown_for_people(line: str, shown: str) -> None:
    assert readable(line) == shown


def test_following_shows_what_comes_also_after_a_new_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = DataDir(tmp_path / "data")
    data.create()
    log = LogFile(data.log("hub"))
    write(log, "old\nbefore\n")
    shown: list[str] = []

    def seen(text: str) -> bool:
        shown.append(capsys.readouterr().out)
        return text in "".join(shown)

    threading.Thread(target=show, args=(data, "hub"), kwargs={"lines": 1, "follow": True}, daemon=True).start()
    wait_until(lambda: seen("before\n"))
    write(log, "half")
    write(log, " a line\n")
    wait_until(lambda: seen("half a line\n"))
    log.begin()
    write(log, "new\n")
    wait_until(lambda: seen("new\n"))
    assert "old" not in "".join(shown)


def test_no_logs_is_said(tmp_path: Path) -> None:
    with pytest.raises(LauncherError, match="there are no logs"):
        show(DataDir(tmp_path), "hub", lines=5, follow=False)
