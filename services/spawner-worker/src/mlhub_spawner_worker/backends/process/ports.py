"""Free ports for workspaces."""

import random
import socket
from collections.abc import Collection
from pathlib import Path

from mlhub_shared.errors import Temporary

LOOPBACK = "127.0.0.1"
_LOWEST = 20000
_ENOUGH = 2000
"""Ports to choose from, below which the system's own range is used."""
_TRIES = 100
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
