"""What strangers may ask of the gateway before they have said who they are."""

import asyncio
import ipaddress
import time
from collections import OrderedDict
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
_IPV6_NETWORK = 64
"""One customer's share of the address space counts as one address."""


@dataclass
class _Bucket:
    tokens: float
    at: float


@dataclass
class _Address:
    slots: asyncio.Semaphore
    users: int = 0


@dataclass
class Admission:
    """Rate per address, handshakes at once per address and in all, and a bounded waiting room.

    Who comes too often waits for his turn, like everybody for whom there is no slot, and is closed at once only when
    the room, or his address's share of it, is full.
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
    _buckets: "OrderedDict[str, _Bucket]" = field(default_factory=OrderedDict)
    _addresses: dict[str, _Address] = field(default_factory=dict)
    _present: int = 0

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.handshakes)

    def refusal(self, address: str) -> str | None:
        """Why a new connection is closed at once, None if it is not."""
        parsed = parsed_address(address)
        if any(parsed in network for network in self.refused):
            return "network"
        origin = origin_of(address)
        own = self._addresses.get(origin)
        if self._present >= self.handshakes + self.waiting:
            return "full"
        if own is not None and own.users >= self.handshakes_per_address + max(self.waiting // _SHARE, 1):
            return "address"
        return None

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """Hold a slot; TimeoutError if none is free in time."""
        origin = origin_of(address)
        own = self._addresses.setdefault(origin, _Address(asyncio.Semaphore(self.handshakes_per_address)))
        own.users += 1
        self._present += 1
        try:
            async with asyncio.timeout(self.patience.total_seconds()) as bound, own.slots:
                await asyncio.sleep(self._spend(origin))
                async with self._slots:
                    bound.reschedule(None)
                    yield
        finally:
            own.users -= 1
            self._present -= 1
            if not own.users:
                del self._addresses[origin]

    def _spend(self, origin: str) -> float:
        """Use up one connection of an address's rate; seconds until it may come."""
        now = self.clock()
        most = max(self.rate * _BURST, 1.0)
        bucket = self._buckets.setdefault(origin, _Bucket(most, now))
        self._buckets.move_to_end(origin)
        bucket.tokens = min(most, bucket.tokens + (now - bucket.at) * self.rate) - 1
        bucket.at = now
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return max(-bucket.tokens / self.rate, 0)


def parsed_address(address: str) -> IPv4Address | IPv6Address:
    """An address without its zone, and as IPv4 where it is that in disguise."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return (parsed.ipv4_mapped or parsed) if parsed.version == 6 else parsed


def origin_of(address: str) -> str:
    """What counts as one address."""
    parsed = parsed_address(address)
    return str(parsed if parsed.version == 4 else ipaddress.ip_network((parsed, _IPV6_NETWORK), strict=False))
