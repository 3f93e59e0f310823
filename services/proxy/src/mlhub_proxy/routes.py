"""Which path leads where: pure, from records and the hub's routes to HAProxy's tables."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes, urlsplit

from mlhub_shared.contracts.services import Route
from mlhub_shared.contracts.workspace import Endpoint, Phase, WorkspaceRecord
from mlhub_shared.errors import Permanent

PUBLIC, PROBE, SITES = "public.map", "probe.map", "sites.map"
TABLES = (PUBLIC, PROBE, SITES)

HUB = "hub"
"""Value of a prefix that belongs to the hub although a shorter one leads elsewhere."""
GONE = "gone"
"""Value of a probe whose workspace won't answer unless it is started again."""
OWN_TOOLS, ANY_PORT = "own", "any"
"""Whether a workspace's image serves what is below `tools/`, or each port of the workspace is a tool there."""
NOBODY = "_"
"""Stands for the workspace of a route that is none's."""

Slot = tuple[str, str]
"""Table and key."""
Entries = Mapping[Slot, str]

_SPELLINGS = ("", "@", "!'()*", "!$&'()*+,;=:@")
"""Characters that writers leave as they are: none, JupyterHub's, JavaScript's, and all that a path may hold."""
_SEGMENT = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:@%-]+")
_LONGEST = 8000
"""Characters of a prefix; a command to HAProxy and a request must fit into 16 KiB."""
_GONE = frozenset({Phase.STOPPING, Phase.STOPPED, Phase.FAILED})


@dataclass(frozen=True)
class Change:
    """What to do to one entry; `value` None removes it."""

    table: str
    key: str
    value: str | None
    existed: bool


def of_record(record: WorkspaceRecord, *, base: str, has_sites: bool = False) -> Entries:
    """The entries of a workspace; Permanent if its prefix is not its own. `has_sites`: its ports have hosts too."""
    server = [record.workspace.server] if record.workspace.server else []
    own = [*_segments(base), *(name.encode() for name in ("user", record.workspace.user, *server))]
    if _segments(record.base_url) != own:
        raise Permanent(f"{record.base_url!r} is not the prefix of {record.workspace}")
    place = address(record.endpoint)
    start = f"{place}|{record.name}|{record.generation}"
    entries: dict[Slot, str] = {}
    if has_sites and record.phase is Phase.READY and place:
        entries[SITES, record.name] = f"{start}|0|{ANY_PORT}"
    for prefix in spellings(record.base_url):
        if record.phase is Phase.READY and place:
            serves = OWN_TOOLS if record.spec.own_tools else ANY_PORT
            entries[PUBLIC, prefix] = f"{start}|{len(prefix)}|{serves}"
        elif server:
            # Else the user's default server would answer for it, and nobody would learn that this one is not up.
            entries[PUBLIC, prefix] = HUB
        if record.phase in _GONE:
            entries[PROBE, f"{prefix}api"] = GONE
        elif record.phase in {Phase.STARTING, Phase.READY} and place:
            entries[PROBE, f"{prefix}api"] = place
    return entries


def of_route(route: Route, addresses: Mapping[str, str], *, base: str) -> Entries:
    """The entries of a route of the hub; Permanent if it is none that can be served here.

    `addresses` has the address of every host name; one that is not there can't be reached for now.
    """
    if not route.routespec.startswith("/"):
        raise Permanent(f"routes by host name are not supported: {route.routespec!r}")
    if _segments(route.routespec) in ([], _segments(base)):
        return {}  # what no other route claims goes to the hub anyway
    host, port = target(route)
    ip = addresses.get(host, host)
    try:
        value = f"{address(Endpoint(host=ip, port=port))}|{NOBODY}"
    except Permanent:
        value = f"{NOBODY}|{port}|{NOBODY}"
    return {(PUBLIC, prefix): value for prefix in spellings(route.routespec)}


def target(route: Route) -> tuple[str, int]:
    """Host and port of a route's target; Permanent if it is not plain HTTP."""
    try:
        parts = urlsplit(route.target)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if not host or parts.scheme != "http":
        raise Permanent(f"only http://host:port can be a target, not {route.target!r}")
    return host, port


def spellings(prefix: str) -> frozenset[str]:
    """All ways a request may write a prefix once HAProxy has normalised what every URL library agrees on.

    Which of the reserved characters are escaped is every writer's own choice.
    """
    segments = _segments(prefix)
    found = {"/".join(["", *(quote(part, safe=safe) for part in segments), ""]) for safe in _SPELLINGS}
    if max(map(len, found)) > _LONGEST:
        raise Permanent(f"this prefix is too long: {prefix[:100]!r}...")
    return frozenset(found)


def _segments(prefix: str) -> list[bytes]:
    """The names between the slashes, as bytes; Permanent where a prefix could be read in two ways."""
    if not prefix.startswith("/") or not prefix.endswith("/"):
        raise Permanent(f"a prefix begins and ends with a slash: {prefix[:100]!r}")
    written = [part.encode() for part in prefix.split("/")[1:-1]]
    segments = [unquote_to_bytes(part) for part in written]
    if not all(_SEGMENT.fullmatch(part) for part in written) or any(part in (b".", b"..") for part in segments):
        raise Permanent(f"this is no prefix of a path: {prefix[:100]!r}")
    return segments


def address(endpoint: Endpoint | None) -> str | None:
    """As a table has it; Permanent if nobody can be there."""
    if endpoint is None:
        return None
    try:
        ip = ipaddress.ip_address(endpoint.host)
    except ValueError as error:
        raise Permanent(f"{endpoint.host!r} is no address") from error
    # HAProxy takes the unspecified address for its own.
    if ip.is_unspecified or ip.is_multicast or "%" in endpoint.host:
        raise Permanent(f"nobody can be at {endpoint.host}")
    return f"{ip}|{endpoint.port}"


class Tables:
    """All entries by where they come from; where two sources claim one key, the smaller source's name wins."""

    def __init__(self) -> None:
        self._sources: dict[str, Entries] = {}
        self._claims: dict[Slot, dict[str, str]] = {}

    def put(self, source: str, entries: Entries) -> list[Change]:
        """Replace all that a source claims; returns what that changes."""
        before = self._sources.pop(source, {})
        if entries:
            self._sources[source] = entries
        changes = []
        for slot in before.keys() | entries.keys():
            if before.get(slot) == entries.get(slot):
                continue
            old = self._value(slot)
            self._claim(slot, source, entries.get(slot))
            new = self._value(slot)
            if old != new:
                changes.append(Change(*slot, value=new, existed=old is not None))
        return changes

    def table(self, name: str) -> dict[str, str]:
        """Key to value of one table."""
        found = ((slot[1], self._value(slot)) for slot in self._claims if slot[0] == name)
        return {key: value for key, value in found if value is not None}

    @property
    def sources(self) -> frozenset[str]:
        """All who claim anything."""
        return frozenset(self._sources)

    def _value(self, slot: Slot) -> str | None:
        claims = self._claims.get(slot)
        return claims[min(claims)] if claims else None

    def _claim(self, slot: Slot, source: str, value: str | None) -> None:
        claims = self._claims.setdefault(slot, {})
        if value is None:
            claims.pop(source, None)
        else:
            claims[source] = value
        if not claims:
            del self._claims[slot]
