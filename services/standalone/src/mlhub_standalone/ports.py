"""The ports of one instance: two for people, given on the command line, and those between its parts, chosen once."""

import random
import socket
import time
from collections.abc import Iterable, Mapping

from mlhub_standalone.errors import LauncherError

PUBLIC, SSH = 8080, 2222
"""Where people come in, unless told otherwise."""

LOOPBACK = "127.0.0.1"

INTERNAL = {
    "nats": None,
    "hub": "MLHUB_HUB_LISTEN_PORT",
    "probe": "MLHUB_PROXY_PROBE_PORT",
    "hub-api": "MLHUB_PROXY_API_PORT",
    "attach": "MLHUB_SPAWNER_WORKER_ATTACH_PORT",
    "proxy": "MLHUB_PROXY_HTTP_PORT",
    "spawner-worker": "MLHUB_SPAWNER_WORKER_HTTP_PORT",
    "cleanup": "MLHUB_CLEANUP_HTTP_PORT",
    "ssh-gateway": "MLHUB_SSH_GATEWAY_HTTP_PORT",
}
"""Ports between the parts, with the variable that sets one by hand."""

# Below the range from which Linux takes the ports of outgoing connections: what is ours stays free while we are down.
_FIRST, _LAST = 20000, 31999
_TRIES = 200
_POLL = 0.05


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Nobody listens there."""
    try:
        with socket.create_server((host, port)):
            return True
    except OSError:
        return False


def await_free(ports: Iterable[int], host: str = LOOPBACK, *, within: float) -> None:
    """Wait until nobody listens on any of them, but not long: who is about to end needs a moment."""
    deadline = time.monotonic() + within
    for port in ports:
        while not is_free(port, host) and time.monotonic() < deadline:
            time.sleep(_POLL)


def choose_internal(kept: Mapping[str, int], environment: Mapping[str, str]) -> tuple[dict[str, int], list[str]]:
    """A port for every part, and a warning for each kept one that somebody else has taken meanwhile."""
    ports: dict[str, int] = {}
    warnings = []
    for name, variable in INTERNAL.items():
        if variable and (fixed := from_environment(variable, environment)):
            ports[name] = fixed
            continue
        port = kept.get(name)
        if port is not None and not is_free(port):
            warnings.append(f"port {port} ({name}) is taken by another program: a new one is used from now on")
            port = None
        ports[name] = port if port is not None else _choose({*ports.values(), *kept.values()})
    return ports, warnings


def from_environment(variable: str, environment: Mapping[str, str]) -> int | None:
    """The port a variable sets; None where it is not set, LauncherError where it is no port."""
    text = environment.get(variable)
    if text is None:
        return None
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise LauncherError(f"{variable} must be a port number, not {text!r}")
    return int(text)


def require_free(port: int, host: str, option: str) -> None:
    """LauncherError if the port can't be listened on."""
    try:
        with socket.create_server((host, port)):
            return
    except PermissionError:
        reason = f"port {port} needs more rights than you have: choose one above 1023"
    except OSError as error:
        reason = f"{host}:{port} can't be used ({error.strerror})"
    raise LauncherError(f"{reason}; another one: mlhub up {option} PORT")


def _choose(taken: set[int]) -> int:
    for _ in range(_TRIES):
        port = random.randint(_FIRST, _LAST)  # noqa: S311  (spread, not secrecy)
        if port not in taken and is_free(port):
            return port
    raise LauncherError(f"no free port was found between {_FIRST} and {_LAST}")
