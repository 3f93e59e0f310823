"""Environment variables that somebody chooses for a workspace: users, or the administrator in a profile."""

import re
from collections.abc import Mapping
from typing import TypeVar

MAX_ENV_BYTES = 64 * 1024
"""Of all names and values together: the kernel refuses to start a process with much more."""

RESERVED_ENV = ("JUPYTERHUB_", "JPY_", "MLHUB_")
"""Prefixes of the variables that the hub itself sets."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

E = TypeVar("E", bound=Mapping[str, str | None])


def check_environment(env: E) -> E:
    """The same variables; ValueError, which tells no value, if nobody can have them. None: a value that is kept."""
    for name, value in env.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name[:40]!r} is not a name for an environment variable")
        if name.startswith(RESERVED_ENV):
            raise ValueError(f"{name} is set by the hub")
        if value is not None and "\0" in value:
            raise ValueError(f"the value of {name} contains a zero byte")
    if sum(len(name.encode()) + len((value or "").encode()) for name, value in env.items()) > MAX_ENV_BYTES:
        raise ValueError(f"must be at most {MAX_ENV_BYTES // 1024} KiB in all")
    return env
