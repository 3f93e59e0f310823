import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlhub_standalone.data_dir import DataDir
from mlhub_standalone.errors import AlreadyRunning
from mlhub_standalone.lock import InstanceLock

HOLD = """
import sys, time
from pathlib import Path
from mlhub_standalone.data_dir import DataDir
from mlhub_standalone.lock import InstanceLock
InstanceLock(DataDir(Path(sys.argv[1]))).acquire()
print(flush=True)
time.sleep(60)
"""


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    data = DataDir(tmp_path / "data")
    data.create()
    return data


@pytest.fixture
def other(data: DataDir) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(data.root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_a_second_launcher_is_told_who_the_first_is(data: DataDir, other: "subprocess.Popen[str]") -> None:
    with pytest.raises(AlreadyRunning, match=f"process {other.pid}") as refused:
        InstanceLock(data).acquire()
    assert refused.value.pid == other.pid
    holder = InstanceLock(data).holder()
    assert holder is not None
    assert holder.pid == other.pid


def test_the_lock_of_a_killed_launcher_is_taken_over(data: DataDir, other: "subprocess.Popen[str]") -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    lock = InstanceLock(data)
    assert lock.holder() is None
    lock.acquire()
    holder = lock.holder()
    assert holder is not None
    assert holder.pid == os.getpid()


def test_nobody_has_it_once_it_is_let_go(data: DataDir) -> None:
    lock = InstanceLock(data)
    lock.acquire()
    lock.release()
    assert lock.holder() is None
    InstanceLock(data).acquire()
