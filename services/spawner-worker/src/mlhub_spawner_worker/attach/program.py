"""Which program a request of an SSH session means, and what its environment is."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from mlhub_spawner_worker.attach import sftp_server
from mlhub_spawner_worker.attach.entry import MARKER, Entry

SFTP_SERVERS = (
    Path("/usr/lib/openssh/sftp-server"),
    Path("/usr/libexec/openssh/sftp-server"),
    Path("/usr/libexec/sftp-server"),
    Path("/usr/lib/ssh/sftp-server"),
)
"""Where distributions put OpenSSH's."""

_SHELLS = ("/bin/bash", "/bin/sh")
_FROM_CLIENT = ("LANG", "COLORTERM", "TERM")
_FROM_CLIENT_PREFIX = "LC_"


def login_shell(environment: Mapping[str, str]) -> list[str]:
    """The workspace's shell as a login shell."""
    return [_shell(environment), "-l"]


def command(environment: Mapping[str, str], line: str) -> list[str]:
    """A command line for the workspace's shell."""
    return [_shell(environment), "-c", line]


def sftp(candidates: tuple[Path, ...] = SFTP_SERVERS) -> list[str]:
    """OpenSSH's server of the SFTP subsystem, else ours."""
    for candidate in candidates:
        if os.access(candidate, os.X_OK):
            return [str(candidate)]
    # Isolated: what the workspace puts into PYTHONPATH is not for this process.
    return [sys.executable, "-I", str(Path(sftp_server.__file__))]


def environment_for(name: str, entry: Entry, client: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """The workspace's environment with the client's language, what the session itself adds, and the marker."""
    return {
        **entry.environment,
        **{key: value for key, value in client.items() if _may_come(key)},
        **extra,
        MARKER: entry.environment.get(MARKER, name),
    }


def _may_come(key: str) -> bool:
    return key in _FROM_CLIENT or key.startswith(_FROM_CLIENT_PREFIX)


def _shell(environment: Mapping[str, str]) -> str:
    wanted = environment.get("SHELL")
    return next(shell for shell in (wanted, *_SHELLS) if shell and (os.access(shell, os.X_OK) or shell == _SHELLS[-1]))
