"""Hosts by their names, whose addresses come and go: looked up again and again, and kept while nobody can tell."""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Never

import structlog
from pydantic import AfterValidator

log = structlog.get_logger(__name__)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Lookup = Callable[[str], Awaitable[Collection[Address]]]
"""All addresses of a name; OSError if nobody can tell."""

OWN = "own"
"""In the place of networks: the one that a listener is on."""

_NAME = re.compile(r"([a-z0-9_]([a-z0-9_-]*[a-z0-9])?\.)*[a-z]([a-z0-9-]*[a-z0-9])?\.?", re.IGNORECASE | re.ASCII)
"""The last part begins with a letter, so that no mistaken address is one."""


def _host_name(text: str) -> str:
    if not _NAME.fullmatch(text) or text == OWN:
        raise ValueError("must be a network, an address, or the name of a host")
    return text


HostName = Annotated[str, AfterValidator(_host_name)]

Place = Network | HostName
"""Where somebody calls from: a network, or whatever address the host of this name has."""

EVERY = 5.0
"""Seconds between two looks."""
_PATIENCE = 3.0
"""Seconds for one; what takes longer is told by a later one."""
_KEPT = 3600.0
"""Seconds that the last known addresses count while a name can't be looked up; they may be somebody else's then."""


async def lookup(host: str) -> Collection[Address]:
    """As this machine's resolver tells it, by any protocol of the internet."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"{host!r} is no name of a host") from error
    return list(dict.fromkeys(ip_address(one[4][0]) for one in found))


class Hosts:
    """The addresses of some hosts."""

    def __init__(self, names: Iterable[str], lookup: Lookup = lookup) -> None:
        self._lookup = lookup
        self._known: dict[str, tuple[Address, ...]] = dict.fromkeys(names, ())
        self._known_at: dict[str, float] = {}
        self._asking: dict[str, asyncio.Future[Collection[Address]]] = {}

    def addresses(self, name: str) -> tuple[Address, ...]:
        """In their order. Empty: they are not known, or no more."""
        return self._known[name]

    def is_known(self, name: str) -> bool:
        """Whether a look has told its addresses ever."""
        return name in self._known_at

    async def look(self) -> bool:
        """Look all names up; whether an address has come or gone."""
        return any(await asyncio.gather(*map(self._look, self._known)))

    async def follow(self, changed: Callable[[], Awaitable[object]] | None = None) -> Never:
        """Look again and again, and tell of changes, until cancelled."""
        while True:
            if await self.look() and changed is not None:
                await changed()
            await asyncio.sleep(EVERY)

    async def _look(self, name: str) -> bool:
        now = asyncio.get_running_loop().time()
        try:
            found = tuple(sorted(await self._ask(name), key=lambda address: (address.version, address)))
        except OSError as error:
            if now - self._known_at.get(name, now) < _KEPT:
                log.warning("host.unknown", host=name, error=str(error))
                return False
            found = ()
        else:
            self._known_at[name] = now
        before, self._known[name] = self._known[name], found
        if before != found:
            log.info("host.moved", host=name, addresses=[str(address) for address in found])
        return before != found

    async def _ask(self, name: str) -> Collection[Address]:
        # A look that nobody waits for any more still holds a thread: the next one waits for it, and starts no other.
        asking = self._asking.get(name)
        if asking is None:
            asking = self._asking[name] = asyncio.ensure_future(self._lookup(name))
            asking.add_done_callback(lambda _: self._asking.pop(name, None))
        done, _ = await asyncio.wait({asking}, timeout=_PATIENCE)
        if not done:
            raise TimeoutError("no answer in time")
        return asking.result()


class Callers:
    """Who may call: the networks and hosts of some places."""

    def __init__(self, places: Iterable[Network | str], lookup: Lookup = lookup) -> None:
        places = tuple(places)
        self._networks = frozenset(place for place in places if not isinstance(place, str))
        self._names = tuple(place for place in places if isinstance(place, str))
        self._hosts = Hosts(self._names, lookup)
        self.look = self._hosts.look
        self.follow = self._hosts.follow

    @property
    def networks(self) -> frozenset[Network]:
        """As names mean it now."""
        hosts = (address for name in self._names for address in self._hosts.addresses(name))
        return self._networks | {ip_network(address) for address in hosts}

    def admits(self, caller: str) -> bool:
        """Whether this address may call. Empty: nobody, who has gone already."""
        if not caller:
            return False
        address = ip_address(caller.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self.networks)
