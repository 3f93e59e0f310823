"""How a workspace's process is brought into the world: held back until everything about it is on disk."""

import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlhub_spawner_worker.backends.base import BackendError
from mlhub_spawner_worker.backends.process.identity import Identity, identify

_SHELL = "/bin/sh"

_HELD_BACK = 'read -r go && cd "$1" && shift && exec "$@" </dev/null'
"""Becomes the workspace when it is told to, and nothing if the worker dies before that: its input ends then."""

_DEFAULTS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
"""Signals that Python or whoever started the worker may ignore, which a child would inherit."""


@dataclass(frozen=True)
class ProcessSettings:
    """What the process backend needs to know."""

    data_dir: Path
    command: Sequence[str]
    """What to run; it listens where JUPYTERHUB_SERVICE_URL says."""
    environment: Mapping[str, str] = field(repr=False)
    """The worker's own, of which an allow-list is passed on."""
    passed: Sequence[str] = ()
    """Further names to pass on."""
    max_log_bytes: int = 1024 * 1024


@dataclass(frozen=True)
class Plan:
    """One process to be."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    home: Path
    log: Path


def close_to_children() -> None:
    """Keep from workspaces what whoever started the worker left open for it: they would hold it open for days."""
    for entry in os.listdir("/proc/self/fd"):
        if int(entry) > 2:
            with contextlib.suppress(OSError):
                os.set_inheritable(int(entry), False)


def launch(plan: Plan, before: Callable[[Identity], None]) -> Identity:
    """Start the process; it does nothing until `before` has returned. BackendError if it can't be started.

    Blocking, so call it from a thread.
    """
    _require(plan.command[0], plan.environment)
    gate, opener = os.pipe()
    try:
        pid = _spawn(plan, gate)
    except OSError as error:
        os.close(opener)
        raise BackendError(f"the workspace can't be started: {error.strerror}") from error
    finally:
        os.close(gate)
    try:
        identity = identify(pid)
        if identity is None:
            raise BackendError("the workspace's process died at once")
        before(identity)
        with contextlib.suppress(BrokenPipeError):
            os.write(opener, b"go\n")
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(opener)
    return identity


def _spawn(plan: Plan, gate: int) -> int:
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
    return os.posix_spawn(
        _SHELL,
        [_SHELL, "-c", _HELD_BACK, "workspace", str(plan.home), *plan.command],
        dict(plan.environment),
        file_actions=[
            (os.POSIX_SPAWN_DUP2, gate, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(plan.log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        # A session of its own: what ends the worker's group leaves it alone.
        setsid=True,
        setsigdef=_DEFAULTS,
        setsigmask=(),
    )


def _require(program: str, environment: Mapping[str, str]) -> None:
    folders = [""] if "/" in program else environment.get("PATH", "").split(":")
    if not any(os.access(Path(folder) / program, os.X_OK) for folder in folders):
        raise BackendError(f"{program} is not there to be run")
