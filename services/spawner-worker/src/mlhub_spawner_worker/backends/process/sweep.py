"""Processes that carry a workspace's marker in their environment: kernels and terminals leave its group and session."""

import contextlib
import os
import signal
import time
from pathlib import Path

from mlhub_spawner_worker.backends.process.environment import INSTANCE, MARKER

_PROC = Path("/proc")
_PAUSE = 0.01
"""Seconds for the killed to go."""


def marked(instance: str, name: str | None = None) -> dict[int, str]:
    """The workspace's name by process id, of every live process of this instance, or of this workspace alone."""
    found = {}
    for entry in os.listdir(_PROC):
        if entry.isdigit() and (marker := _marker(int(entry), instance)) is not None and name in (None, marker):
            found[int(entry)] = marker
    return found


def kill_marked(instance: str, name: str, *, within: float = 10) -> list[int]:
    """Kill all that carries this workspace's marker, until there is none; returns what it could not kill."""
    deadline = time.monotonic() + within
    while left := marked(instance, name):
        for pid in left:
            _kill(pid, instance, name)
        if time.monotonic() > deadline:
            return sorted(left)
        time.sleep(_PAUSE)
    return []


def _kill(pid: int, instance: str, name: str) -> None:
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        # Asked again with the descriptor open: the id may have become another process' since the scan.
        if _marker(pid, instance) == name:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
    finally:
        os.close(fd)


def _marker(pid: int, instance: str) -> str | None:
    try:
        variables = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    if f"{INSTANCE}={instance}".encode() not in variables:
        return None
    prefix = f"{MARKER}=".encode()
    return next((v.removeprefix(prefix).decode() for v in variables if v.startswith(prefix)), None)
