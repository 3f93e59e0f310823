"""Which subnet the next network gets."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

NEEDLESS = 3
"""Addresses of a subnet that no container gets: its own, the broadcast's and the gateway's."""


def room(subnet: IPv4Network) -> int:
    """How many containers a subnet has addresses for."""
    return subnet.num_addresses - NEEDLESS


class Subnets:
    """A pool of addresses, cut into subnets of one size."""

    def __init__(self, pool: IPv4Network, size: int) -> None:
        if not pool.prefixlen <= size <= 29:
            raise ValueError(f"/{size} is no size for a network out of {pool}: from /{pool.prefixlen} to /29")
        self.pool, self.size = pool, size
        self._step = 1 << (32 - size)
        self.count = pool.num_addresses // self._step

    def first_free(self, taken: Iterable[IPv4Network]) -> IPv4Network | None:
        """The first subnet that shares no address with those taken; None when there is none."""
        closed: set[int] = set()
        for network in taken:
            closed.update(self._touched(network))
        index = next((index for index in range(self.count) if index not in closed), None)
        return None if index is None else self._at(index)

    def _touched(self, network: IPv4Network) -> range:
        start = int(self.pool.network_address)
        first = (int(network.network_address) - start) // self._step
        last = (int(network.broadcast_address) - start) // self._step
        return range(max(first, 0), min(last, self.count - 1) + 1)

    def _at(self, index: int) -> IPv4Network:
        return IPv4Network((int(self.pool.network_address) + index * self._step, self.size))


def gateway(subnet: IPv4Network) -> IPv4Address:
    """The host's own address in a subnet."""
    return subnet.network_address + 1


def from_the_end(subnet: IPv4Network, place: int) -> IPv4Address:
    """The last address that a container can have, for place 0, and those before it."""
    return subnet.broadcast_address - 1 - place
