"""What strangers may ask of the gateway before they have said who they are."""

import asyncio
import ipaddress
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

_REMEMBERED = 10_000
"""Addresses whose rate is kept; the longest unseen is forgotten first."""
_BURST = 1.0
"""Seconds of its rate that an address may use up at once."""
_SHARE = 4
"""One address may take this part of the waiting room, so that there is room for others."""
_IPV6_NETWORK, _IPV6_SITE = 64, 48
"""One customer's share of the address space counts as one address, and whoever may have many of them as one site."""
_SITE_FACTOR = 4
"""A site may come so much more often than an address."""
_GRACE = 2.0
"""Seconds for which a slot is safe from those who wait for one."""


@dataclass
class _Bucket:
    tokens: float
    at: float


@dataclass
class Pace:
    """So many a second of each, on the average."""

    rate: float
    clock: Callable[[], float] = time.monotonic
    _buckets: "OrderedDict[str, _Bucket]" = field(default_factory=OrderedDict)

    def spend(self, who: str) -> float:
        """Use up one; seconds until it is due."""
        now = self.clock()
        most = max(self.rate * _BURST, 1.0)
        bucket = self._buckets.setdefault(who, _Bucket(most, now))
        self._buckets.move_to_end(who)
        bucket.tokens = min(most, bucket.tokens + (now - bucket.at) * self.rate) - 1
        bucket.at = now
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return max(-bucket.tokens / self.rate, 0)


@dataclass(eq=False)
class _Holder:
    site: str
    since: float
    bound: asyncio.Timeout


@dataclass
class _Address:
    slots: asyncio.Semaphore
    users: int = 0


@dataclass
class Admission:
    """Rate per address, handshakes at once per address and in all, and a bounded waiting room.

    Who comes too often waits for his turn, like everybody for whom there is no slot, and is closed at once only when
    the room, or his site's share of it, is full. Who has waited a while gets the oldest slot of the site with most.
    """

    handshakes: int
    handshakes_per_address: int
    waiting: int
    rate: float
    """New connections per second of one address."""
    patience: timedelta
    """For a turn in the waiting room."""
    refused: Sequence[IPv4Network | IPv6Network] = ()
    """Networks that nobody comes in from."""
    clock: Callable[[], float] = time.monotonic
    _addresses: dict[str, _Address] = field(default_factory=dict)
    _sites: Counter[str] = field(default_factory=Counter)
    _holders: list[_Holder] = field(default_factory=list)
    """The oldest first."""

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.handshakes)
        self._pace = Pace(self.rate, self.clock)
        self._site_pace = Pace(self.rate * _SITE_FACTOR, self.clock)

    def refusal(self, address: str) -> str | None:
        """Why a new connection is closed at once, None if it is not."""
        parsed = parsed_address(address)
        if any(parsed in network for network in self.refused):
            return "network"
        if self._sites.total() >= self.handshakes + self.waiting:
            return "full"
        if self._sites[_site_of(address)] >= self.handshakes_per_address + max(self.waiting // _SHARE, 1):
            return "address"
        return None

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """Hold a slot; TimeoutError if none is free in time, and for who held one for long while others waited."""
        origin, site = origin_of(address), _site_of(address)
        own = self._addresses.setdefault(origin, _Address(asyncio.Semaphore(self.handshakes_per_address)))
        own.users += 1
        self._sites[site] += 1
        try:
            async with asyncio.timeout(self.patience.total_seconds()) as bound, own.slots:
                await asyncio.sleep(max(self._pace.spend(origin), self._site_pace.spend(site)))
                async with self._slot(site, bound):
                    yield
        finally:
            own.users -= 1
            if not own.users:
                del self._addresses[origin]
            self._sites[site] -= 1
            if not self._sites[site]:
                del self._sites[site]

    @asynccontextmanager
    async def _slot(self, site: str, bound: asyncio.Timeout) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        waiting = asyncio.ensure_future(self._make_room())
        try:
            await self._slots.acquire()
        finally:
            waiting.cancel()
        bound.reschedule(None)
        holder = _Holder(site, loop.time(), bound)
        self._holders.append(holder)
        try:
            yield
        finally:
            if holder in self._holders:
                self._holders.remove(holder)
            self._slots.release()

    async def _make_room(self) -> None:
        """End a turn that has lasted, of whoever has most of them, again and again."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_GRACE)
            held = Counter(holder.site for holder in self._holders)
            old = [holder for holder in self._holders if holder.since <= loop.time() - _GRACE]
            if old:
                found = max(old, key=lambda holder: held[holder.site])
                self._holders.remove(found)
                found.bound.reschedule(loop.time())


def parsed_address(address: str) -> IPv4Address | IPv6Address:
    """An address without its zone, and as IPv4 where it is that in disguise."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return (parsed.ipv4_mapped or parsed) if parsed.version == 6 else parsed


def origin_of(address: str) -> str:
    """What counts as one address."""
    return _network_of(address, _IPV6_NETWORK)


def _site_of(address: str) -> str:
    return _network_of(address, _IPV6_SITE)


def _network_of(address: str, length: int) -> str:
    parsed = parsed_address(address)
    return str(parsed if parsed.version == 4 else ipaddress.ip_network((parsed, length), strict=False))
