"""Which process is meant: its id alone may be another one's tomorrow."""

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_START_TIME = 19
"""Of the fields after the command, counted from 0: field 22 of the whole."""


@dataclass(frozen=True)
class Identity:
    """One process among all that ever ran on this machine."""

    pid: int
    start: int
    """In clock ticks after boot."""
    boot: str


def boot_id() -> str:
    """Of this boot of the machine."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> Identity | None:
    """The process that has this id now; None if none is alive. A zombie counts as dead."""
    start = start_time(pid)
    return None if start is None else Identity(pid, start, boot_id())


def start_time(pid: int) -> int | None:
    """Clock ticks after boot; None for one that is dead, a zombie included."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The command, in parentheses, may hold anything, parentheses too.
    fields = stat[stat.rindex(")") + 1 :].split()
    return None if fields[0] in "ZX" else int(fields[_START_TIME])


def open_pidfd(identity: Identity) -> int | None:
    """A descriptor of exactly this process; None if it is dead."""
    if identity.boot != boot_id():
        return None
    try:
        fd = os.pidfd_open(identity.pid)
    except OSError:
        return None
    # Compared after the descriptor is open: from then on the id can't become another process' unnoticed.
    if start_time(identity.pid) != identity.start:
        os.close(fd)
        return None
    return fd


def send_group(pid: int, number: signal.Signals) -> None:
    """Signal the process group of a leader that is known to live."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
