"""Ports of this machine: free ones for workspaces, and those that their programs listen on."""

import os
import random
import socket
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from mlhub_shared.contracts.workspace import Endpoint
from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends import listening as tables
from mlhub_spawner_worker.backends.base import Listening

LOOPBACK = "127.0.0.1"
_LOWEST = 20000
_ENOUGH = 2000
"""Ports to choose from, below which the system's own range is used."""
_TRIES = 100
_PROC = Path("/proc")
_TABLES = (_PROC / "net/tcp", _PROC / "net/tcp6")
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def choose_port(taken: Collection[int]) -> int:
    """A port that nobody listens on now and none of `taken`; Temporary if none is found."""
    for _ in range(_TRIES):
        port = _candidate()
        if port not in taken and is_free(port):
            return port
    raise Temporary("no free port was found on this machine")


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now; 0 stands for any."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def listening(pids: Iterable[int], *, but: int) -> list[Listening]:
    """The ports that these processes, and no others, listen on."""
    sockets = [one for table in _TABLES if table.exists() for one in tables.sockets(table.read_text())]
    owners = _owners(pids, {one.inode for one in sockets})
    found = []
    for port in sorted({one.port for one in sockets if one.inode in owners} - {but}):
        here = [one for one in sockets if one.port == port]
        own = [one for one in here if one.inode in owners]
        if (endpoint := _endpoint(here, owners)) is not None:
            is_internal = port >= _first_ephemeral() and all(one.address.is_loopback for one in own)
            found.append(Listening(port, _program(owners[own[0].inode]), endpoint, is_internal=is_internal))
    return found


def _owners(pids: Iterable[int], inodes: Collection[int]) -> dict[int, int]:
    """Which of the processes hold these sockets."""
    links = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, int] = {}
    for pid in sorted(pids):
        with suppress(OSError):
            for entry in os.scandir(_PROC / str(pid) / "fd"):
                with suppress(OSError):
                    if (inode := links.get(os.readlink(entry.path))) is not None:
                        found.setdefault(inode, pid)
    return found


def _endpoint(sockets: Collection[tables.Socket], owners: Mapping[int, int]) -> Endpoint | None:
    """Where one port is reached. All workspaces share the loopback: what another one may get is not dialled."""
    own = [one.address for one in sockets if one.inode in owners]
    for address in (*tables.LOOPBACK, *(one for one in own if not one.is_unspecified)):
        takers = [one for one in sockets if one.takes(address)]
        if takers and all(one.inode in owners for one in takers):
            return Endpoint(host=str(address), port=takers[0].port)
    return None


def _program(pid: int) -> str:
    try:
        command = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ""
    return tables.program(os.fsdecode(command).split("\0"))


def _candidate() -> int:
    # Below the range that connections to elsewhere get their ports from: one of those can't come in between.
    highest = _first_ephemeral() - 1
    if highest - _LOWEST >= _ENOUGH:
        return random.randint(_LOWEST, highest)  # noqa: S311  (spread, not secrecy)
    with socket.create_server((LOOPBACK, 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def _first_ephemeral() -> int:
    try:
        return int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32768
