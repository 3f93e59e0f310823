"""Where a forwarded connection may lead."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from fnmatch import fnmatchcase

from mlhub_shared.contracts.workspace import Endpoint, WorkspaceRecord

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_OWN_PORT = 8080
"""Where people's settings of old expect the SSH of an image that has its own."""
_PATTERN = re.compile(r"(\*|\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.*_-]+):(\*|\d{1,5})")


class Place(Enum):
    """On which side of the workspace's wall a destination is."""

    INSIDE = auto()
    """A port of the workspace's own loopback."""
    ENDPOINT = auto()
    """The port that the workspace itself answers on, which is an SSH server's too."""
    OUTWARD = auto()
    """Elsewhere, seen from inside the workspace."""


@dataclass(frozen=True)
class Pattern:
    """Destinations that an administrator allows."""

    host: str
    port: str

    def fits(self, host: str, port: int) -> bool:
        """Whether a destination is one of them."""
        return fnmatchcase(host.lower(), self.host) and self.port in ("*", str(port))


def parse_pattern(text: str) -> Pattern:
    """`host:port`, either of which may be `*` (and the host contain it), or `*` for both; ValueError if it is none."""
    if text == "*":
        return Pattern("*", "*")
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise ValueError("must be host:port")
    return Pattern(found[1].strip("[]").lower(), found[2])


def place_of(host: str, port: int, name: str, *, outward: Sequence[Pattern]) -> Place | None:
    """Where a destination lies for whoever is in the workspace of that name; None if nobody gets there."""
    host = host.lower()
    if host in _LOOPBACK:
        return Place.INSIDE
    if host == name:
        return Place.ENDPOINT
    return Place.OUTWARD if any(pattern.fits(host, port) for pattern in outward) else None


def own_ssh(record: WorkspaceRecord, port: int) -> Endpoint | None:
    """Where the workspace's own SSH server answers, if that is what is behind this port of it."""
    endpoint = record.endpoint
    if endpoint is None or not record.spec.own_ssh or port not in (endpoint.port, _OWN_PORT):
        return None
    return endpoint
