"""Processes of this machine, told apart beyond doubt: a pid alone may have been given to a stranger."""

import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_DEAD = {"Z", "X", "x"}


@dataclass(frozen=True)
class Identity:
    """One process: its pid, when it was started (ticks since boot), and the boot."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """The process that has this pid now; None if there is none."""
        started = _start_time(pid)
        return None if started is None else cls(pid, started, boot_id())

    @property
    def is_alive(self) -> bool:
        """Still the same process, and running."""
        return Identity.of(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Signal it, if it is still there."""
        with suppress(ProcessLookupError), _handle(self) as fd:
            signal.pidfd_send_signal(fd, number)


def boot_id() -> str:
    """Which start of this machine this is."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def marked(variable: str, value: str) -> list[Identity]:
    """All processes that were started with this variable at this value, except ourselves."""
    mark = f"{variable}={value}".encode()
    return [found for found, environment in _environments() if mark in environment]


def named(pid_file: Path) -> list[Identity]:
    """The process of a pid file, if it works below the file's folder, where no stranger does."""
    try:
        pid = int(pid_file.read_text().split()[0])
        found, folder = Identity.of(pid), (PROC / str(pid) / "cwd").readlink()
    except (OSError, ValueError, IndexError):
        return []
    return [found] if found and folder.is_relative_to(pid_file.parent.resolve()) else []


def end(processes: Iterable[Identity], *, within: float) -> int:
    """End processes: SIGTERM, and SIGKILL for those left after so many seconds. Returns how many there were."""
    living = [process for process in dict.fromkeys(processes) if process.is_alive]
    for number, seconds in ((signal.SIGTERM, within), (signal.SIGKILL, 5.0)):
        left = [process for process in living if process.is_alive]
        for process in left:
            process.send(number)
        _await_end(left, seconds)
    return len(living)


def _await_end(processes: list[Identity], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for process in processes:
        with suppress(ProcessLookupError), _handle(process) as fd:
            ended = select.poll()
            ended.register(fd, select.POLLIN)
            ended.poll(max(0, int((deadline - time.monotonic()) * 1000)))


def _environments() -> list[tuple[Identity, list[bytes]]]:
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        # A process may end, or be somebody else's, at any line here.
        with suppress(OSError):
            identity = Identity.of(int(entry.name))
            environment = (entry / "environ").read_bytes().split(b"\0")
            if identity is not None:
                found.append((identity, environment))
    return found


def _start_time(pid: int) -> int | None:
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name in parentheses may itself contain spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in _DEAD else int(fields[19])


@contextmanager
def _handle(process: Identity) -> Iterator[int]:
    """A descriptor of exactly this process; ProcessLookupError if it has gone."""
    fd = os.pidfd_open(process.pid)
    try:
        # Opened first, compared after: no race with a pid that is given anew.
        if not process.is_alive:
            raise ProcessLookupError(process.pid)
        yield fd
    finally:
        os.close(fd)
