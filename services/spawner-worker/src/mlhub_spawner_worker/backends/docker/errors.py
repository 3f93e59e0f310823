"""The engine's answers as the worker's errors, at this edge and nowhere else.

BackendError        the engine says no
├── Missing         there is no such thing
└── Taken           its name is taken, or it is in use
EngineAway          a Temporary: nobody knows what became of the call
"""

import contextlib
from collections.abc import Iterator

import aiohttp
from aiodocker.exceptions import DockerError

from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends.base import BackendError

_NOT_CONNECTED = 900
"""aiodocker's own status for an engine that can't be reached."""

_LONGEST = 600
"""Characters of an engine's message that people are shown."""

_PASSING = (
    "context canceled",
    "connection is closing",
    "transport is closing",
    "connection refused",
    "connection reset",
    "ttrpc: closed",
    "shutting down",
    "marked for removal",
    "removal in progress",
    "is already in progress",
    "port is already allocated",
    # Of a port. Without the first word: of an address of a network, which stays in use.
    "bind: address already in use",
)
"""What the engine says while it is restarted, or of something that is just going."""


class Missing(BackendError):
    """The engine knows of no such thing."""


class Taken(BackendError):
    """The name is taken, or the thing is in use."""


class EngineAway(Temporary):
    """The engine did not answer; the call may have had its effect all the same."""


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn whatever a call to the engine raises into an error of the worker; `doing` completes "can't ..."."""
    try:
        yield
    except DockerError as error:
        raise translate(error.status, error.message, doing) from error
    except TimeoutError as error:
        raise EngineAway(f"the Docker engine took too long to {doing}") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise EngineAway(f"the Docker engine does not answer: {type(error).__name__}") from error


def translate(status: int, message: str, doing: str) -> BackendError | Temporary:
    """The error that stands for an answer of the engine."""
    text = message.strip()[:_LONGEST]
    lower = text.lower()
    if status in (_NOT_CONNECTED, 503):
        return EngineAway(f"the Docker engine does not answer: {text}")
    if "no space left on device" in lower:
        return BackendError(f"The disk of this node is full: the Docker engine can't {doing}.")
    if "no available ipv4 addresses" in lower:
        return BackendError("The network of this user is full. Stop another workspace first.")
    if any(words in lower for words in _PASSING):
        return Temporary(f"the Docker engine can't {doing} now: {text}")
    kind = {404: Missing, 409: Taken}.get(status, BackendError)
    return kind(f"The Docker engine can't {doing}: {text}")
