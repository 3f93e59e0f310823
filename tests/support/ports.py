"""Ports for servers that a test starts as processes of their own."""

import os
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle

_FIRST, _SHARE, _SHARES = 10_000, 1_250, 8
"""Below what the system gives to clients and the launcher to its parts: a port stays free for the server it is for."""


def free_port() -> int:
    """A port that is free, and that nobody else in this run of the tests is given for a long time."""
    for port in _ports:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("ports do not end")


def _own_share() -> Iterator[int]:
    """Every process of a run has its own, and begins where a run beside it hardly ever does."""
    share = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SHARES
    ports = range(_FIRST + share * _SHARE, _FIRST + (share + 1) * _SHARE)
    begin = random.randrange(_SHARE)
    return cycle([*ports[begin:], *ports[:begin]])


_ports = _own_share()
