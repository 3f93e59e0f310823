"""What it takes to run something inside a workspace of this machine."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MARKER = "MLHUB_WORKSPACE"
"""Names the workspace in the environment of everything that runs in it, so that its stop finds what left its group."""


@dataclass(frozen=True)
class Entry:
    """How to enter a workspace that is ready."""

    cwd: Path
    environment: dict[str, str]
    """The whole environment; nothing of the worker's own is added."""
    enter_cgroup: Callable[[int], None] | None = None
    """Called with its own pid in each new child before it becomes the program: keep it to a write or a system call."""
