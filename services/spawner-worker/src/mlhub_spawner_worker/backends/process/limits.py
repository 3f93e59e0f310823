"""Limits of CPU and memory, as far as this machine lets the worker set any."""

import contextlib
import os
import resource
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from mlhub_shared.contracts.workspace import WorkspaceSpec

log = structlog.get_logger(__name__)

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_PERIOD_US = 100_000
_PAUSE = 0.01


class Limiter(Protocol):
    """Puts processes under a workspace's limits; blocking, but brief."""

    sentence: str

    def make(self, name: str, spec: WorkspaceSpec) -> None:
        """Have the limits ready before the workspace starts."""

    def join(self, name: str, pid: int) -> None:
        """Put a process, and all that it will start, under them."""

    def kill(self, name: str) -> None:
        """End every process that is under them, and remove them."""

    def members(self, name: str) -> list[int] | None:
        """The processes that are under them. None: not known."""

    def usage(self, name: str) -> tuple[float | None, int | None]:
        """CPU seconds and bytes of memory used. None: not known."""


class Guard:
    """No cgroup to be had: each process of a workspace alone is kept from growing beyond its memory."""

    sentence = "memory is limited for each process alone, CPU is not: this worker has no right to use cgroups"

    def __init__(self) -> None:
        self._bytes: dict[str, int | None] = {}

    def make(self, name: str, spec: WorkspaceSpec) -> None:
        """Remember how much it may have."""
        self._bytes[name] = spec.mem_limit

    def join(self, name: str, pid: int) -> None:
        """Limit the data segment: address space would stop libraries that reserve far more than they use."""
        if (most := self._bytes.get(name)) is not None:
            with contextlib.suppress(OSError, ValueError):
                resource.prlimit(pid, resource.RLIMIT_DATA, (most, most))

    def kill(self, name: str) -> None:
        """Nothing to end by."""
        self._bytes.pop(name, None)

    def members(self, name: str) -> list[int] | None:
        """Not known."""
        return None

    def usage(self, name: str) -> tuple[float | None, int | None]:
        """Not known."""
        return None, None


@dataclass(frozen=True)
class Files:
    """Where one version of cgroups keeps things."""

    cpu: Path
    """Directory below which the workspaces' groups are made."""
    memory: Path
    """The same as `cpu` in version 2."""
    version: int


class Cgroups:
    """One cgroup for each workspace: limits for all of it, and a fence that none of its processes gets out of."""

    def __init__(self, files: Files, instance: str) -> None:
        self._files = files
        self._group = f"mlhub-{instance[:12]}"
        self.sentence = f"CPU and memory of each workspace are limited as a whole (cgroups, version {files.version})"

    def make(self, name: str, spec: WorkspaceSpec) -> None:
        """Make the group, with its limits set anew."""
        for folder in self._folders(name):
            folder.mkdir(parents=True, exist_ok=True)
        cpu, memory = self._folders(name)[0], self._folders(name)[-1]
        quota = int(spec.cpu_limit * _PERIOD_US) if spec.cpu_limit else None
        if self._files.version == 2:
            _write(cpu.parent / "cgroup.subtree_control", "+cpu +memory")
            _write(cpu / "cpu.max", f"{quota or 'max'} {_PERIOD_US}")
            _write(memory / "memory.max", str(spec.mem_limit or "max"))
            return
        _write(cpu / "cpu.cfs_period_us", str(_PERIOD_US))
        _write(cpu / "cpu.cfs_quota_us", str(quota or -1))
        _write(memory / "memory.limit_in_bytes", str(spec.mem_limit or -1))

    def join(self, name: str, pid: int) -> None:
        """Move a process in; what it starts is born there."""
        for folder in self._folders(name):
            _write(folder / "cgroup.procs", str(pid))

    def kill(self, name: str) -> None:
        """Kill until nobody is left inside, then remove the group."""
        for folder in self._folders(name):
            deadline = time.monotonic() + 5
            while pids := _members(folder):
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
                if time.monotonic() > deadline:
                    break
                time.sleep(_PAUSE)
            with contextlib.suppress(OSError):
                folder.rmdir()
                folder.parent.rmdir()  # Refused while it holds another workspace's.

    def members(self, name: str) -> list[int] | None:
        """All that were born in the group, or have been put there."""
        return _members(self._folders(name)[0])

    def usage(self, name: str) -> tuple[float | None, int | None]:
        """Of all its processes together."""
        cpu, memory = self._folders(name)[0], self._folders(name)[-1]
        if self._files.version == 2:
            used = _number(cpu / "cpu.stat", "usage_usec")
            return (None if used is None else used / 1e6), _number(memory / "memory.current")
        return None, _number(memory / "memory.usage_in_bytes")

    def _folders(self, name: str) -> list[Path]:
        return [base / self._group / name for base in dict.fromkeys((self._files.cpu, self._files.memory))]


def find_limiter(instance: str, *, root: Path = _ROOT, own: Path = _OWN) -> Limiter:
    """The best that this machine lets the worker do."""
    for files in filter(None, (_version_2(root, own), _version_1(root, own))):
        limiter = Cgroups(files, instance)
        try:
            limiter.make("_try", WorkspaceSpec(cpu_limit=1, mem_limit=1 << 30))
            limiter.kill("_try")
        except OSError as error:
            log.info("cgroups.not_usable", version=files.version, error=str(error))
        else:
            return limiter
    return Guard()


def _version_2(root: Path, own: Path) -> Files | None:
    base = _own_group(root, own, "")
    if base is None or not (base / "cgroup.controllers").exists():
        return None
    with contextlib.suppress(OSError):
        # Refused where processes sit in this group itself; a delegated one has it set already.
        _write(base / "cgroup.subtree_control", "+cpu +memory")
    return Files(base, base, 2)


def _version_1(root: Path, own: Path) -> Files | None:
    cpu, memory = _own_group(root / "cpu", own, "cpu"), _own_group(root / "memory", own, "memory")
    return Files(cpu, memory, 1) if cpu and memory else None


def _own_group(root: Path, own: Path, controller: str) -> Path | None:
    """The group this process is in, as seen below `root`."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            # In a container the path may be the host's: then the root is this container's own group.
            found = root / path.lstrip("/")
            return found if found.is_dir() else root if root.is_dir() else None
    return None


def _write(path: Path, value: str) -> None:
    # Not `write_text`: it would create what is no file of the kernel's.
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _members(folder: Path) -> list[int]:
    try:
        return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _number(path: Path, key: str | None = None) -> int | None:
    try:
        for line in path.read_text().splitlines():
            name, _, value = line.rpartition(" ")
            if key in (None, name):
                return int(value)
    except (OSError, ValueError):
        return None
    return None
