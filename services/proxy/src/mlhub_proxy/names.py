"""Addresses of the hosts that routes name: the last good one stays while a name can't be resolved."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable

import structlog

log = structlog.get_logger(__name__)


class Names:
    """Remembers an address for each host name."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}

    async def resolve(self, hosts: Iterable[str], *, within: float) -> bool:
        """Look the names up within so many seconds; whether an address changed."""
        found = await asyncio.gather(*(self._lookup(host, within) for host in set(hosts) if not _is_address(host)))
        fresh = {host: address for host, address in found if address is not None}
        changed = any(self.addresses.get(host) != address for host, address in fresh.items())
        self.addresses.update(fresh)
        return changed

    async def _lookup(self, host: str, within: float) -> tuple[str, str | None]:
        loop = asyncio.get_running_loop()
        try:
            found = await asyncio.wait_for(loop.getaddrinfo(host, None, type=socket.SOCK_STREAM), within)
        except (OSError, UnicodeError) as error:
            log.warning("proxy.name_unknown", host=host, error=str(error) or "no answer in time")
            return host, None
        addresses = sorted({str(info[4][0]) for info in found}, key=lambda address: (":" in address, address))
        # One that stays good is kept, or connections would wander between equal ones.
        known = self.addresses.get(host)
        return host, known if known in addresses else addresses[0]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
