"""The way into a workspace of this machine."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlhub_spawner_worker.backends.process.entered import Entered, Plan
from mlhub_spawner_worker.backends.process.terminal import Pair, open_terminal
from mlhub_spawner_worker.entry import Child, Client, EntryError, Loopback, Order, What, sftp_server

SFTP_SERVERS = tuple(Path(path) for path in sftp_server.OPENSSH)
_SHELLS = ("/bin/bash", "/bin/sh")


@dataclass(frozen=True)
class LocalEntry:
    """How to enter a workspace that is ready."""

    cwd: Path
    environment: dict[str, str] = field(repr=False)
    """The whole environment; nothing of the worker's own is added."""
    enter_cgroup: Callable[[int], None] | None = field(default=None, compare=False)
    """Called with its own pid in each new child before it becomes the program: keep it to a write or a system call."""
    loopback: Loopback | None = None

    async def run(self, order: Order, client: Client) -> Child:
        """Start a program as a child of this process; EntryError if that can't be."""
        argv = arguments(order, self.environment)
        terminal = open_terminal(order.terminal.size, order.terminal.modes) if order.terminal else None
        environment = self.environment | _additions(order, terminal)
        try:
            return await Entered.start(Plan(argv, self.cwd, environment, self.enter_cgroup, terminal), client)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise EntryError(f"{argv[0]} can't be started: {error}") from error


def arguments(
    order: Order, environment: Mapping[str, str], *, sftp_servers: tuple[Path, ...] = SFTP_SERVERS
) -> list[str]:
    """What an order means on this machine."""
    match order.what:
        case What.SHELL:
            return [_shell(environment), "-l"]
        case What.COMMAND:
            return [_shell(environment), "-c", order.line]
        case What.SFTP:
            for candidate in sftp_servers:
                if os.access(candidate, os.X_OK):
                    return [str(candidate)]
            # Isolated: what the workspace puts into PYTHONPATH is not for this process.
            return [sys.executable, "-I", str(Path(sftp_server.__file__))]


def _additions(order: Order, terminal: Pair | None) -> dict[str, str]:
    additions = dict(order.environment)
    if order.agent is not None:
        additions["SSH_AUTH_SOCK"] = str(order.agent)
    if terminal is not None and order.terminal is not None:
        additions |= {"TERM": order.terminal.type, "SSH_TTY": terminal.name}
    return additions


def _shell(environment: Mapping[str, str]) -> str:
    wanted = environment.get("SHELL")
    return next(shell for shell in (wanted, *_SHELLS) if shell and (os.access(shell, os.X_OK) or shell == _SHELLS[-1]))
