"""Those around the proxy that have names: the hub, the SSH gateways, and who may ask the probe frontend.

Their addresses come and go where containers do; HAProxy follows them without a new configuration.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from mlhub_proxy.maps import write_whole
from mlhub_proxy.runtime_api import HAProxyUnavailable, RuntimeApi, line
from mlhub_proxy.settings import ProxySettings
from mlhub_proxy.templates import is_name
from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.runtime.hosts import Address, Callers, Hosts, Lookup, lookup

log = structlog.get_logger(__name__)

CALLERS = "callers.map"
"""The table of networks that may ask the probe frontend."""
MOST_GATEWAYS = 16
"""Places for the addresses of one name; those beyond get no work."""


class Servers:
    """The places of one name in HAProxy's backends: a server stays in its place as long as its address is good."""

    def __init__(self, host: str, port: int, backends: Iterable[str], *, most: int = 1) -> None:
        self.host, self._port, self._backends = host, port, tuple(backends)
        self._places: list[Address | None] = [None] * most

    def settle(self, addresses: Iterable[Address]) -> None:
        """Give every address a place, as far as there are any."""
        addresses = list(addresses)
        self._places = [place if place in addresses else None for place in self._places]
        waiting = [address for address in addresses if address not in self._places]
        for index, place in enumerate(self._places):
            if place is None and waiting:
                self._places[index] = waiting.pop(0)
        if waiting and len(self._places) > 1:
            log.warning("proxy.too_many_addresses", host=self.host, most=len(self._places), without=len(waiting))

    async def bring(self, api: RuntimeApi) -> None:
        """Make HAProxy follow."""
        for backend, name in (pair.split("/") for pair in self._backends):
            for number, address in enumerate(self._places, 1):
                await api.set_server(f"{backend}/{name}{number}", str(address) if address else None, self._port)


class Neighbours:
    """Brings the addresses to HAProxy, again after each of its starts."""

    def __init__(self, settings: ProxySettings, api: RuntimeApi, folder: Path, lookup: Lookup = lookup) -> None:
        """`settings` as `placed` makes them: nobody is in a network that is yet to be found."""
        self._api, self._file = api, folder / CALLERS
        places = settings.internal_networks
        self._callers = Callers(() if isinstance(places, str) else places, lookup)
        self._servers = list(_servers(settings))
        self._hosts = Hosts({servers.host for servers in self._servers}, lookup)
        self._bringing = asyncio.Lock()

    async def prepare(self) -> None:
        """Write the table that HAProxy starts with."""
        await self._look()
        text = "".join(line(*entry) for entry in self._entries().items())
        await asyncio.to_thread(write_whole, self._file, text)

    async def follow(self) -> None:
        """Bring every change to HAProxy, until cancelled."""
        await asyncio.gather(self._callers.follow(self._bring), self._hosts.follow(self._bring))

    async def resync(self) -> None:
        """Bring everything to a HAProxy that may hold something else."""
        await self._look()  # one that was found running has addresses, and must not lose them to our not knowing any
        await self._bring()

    async def _look(self) -> None:
        await asyncio.gather(self._callers.look(), self._hosts.look())

    async def _bring(self) -> None:
        """Returns when HAProxy has it, however long it is away."""
        backoff = Backoff(first=0.05, most=1)
        async with self._bringing:
            while True:
                try:
                    await self._bring_once()
                except HAProxyUnavailable as error:
                    log.debug("proxy.neighbours_not_brought", error=str(error))
                    await backoff.sleep()
                else:
                    return

    async def _bring_once(self) -> None:
        await self._api.swap(CALLERS, self._entries())
        for servers in self._servers:
            if self._hosts.is_known(servers.host):
                servers.settle(self._hosts.addresses(servers.host))
                await servers.bring(self._api)

    def _entries(self) -> dict[str, str]:
        return {str(network): "1" for network in sorted(self._callers.networks, key=str)}


def _servers(settings: ProxySettings) -> Iterable[Servers]:
    hub = urlsplit(settings.hub_url)
    if is_name(hub.hostname or ""):
        yield Servers(hub.hostname or "", hub.port or 80, ("hub/hub", "hub_api/hub"))
    if settings.ssh_gateway is not None:
        host, port = settings.ssh_gateway
        if port and is_name(host):
            yield Servers(host, port, ("gateway/gateway",), most=MOST_GATEWAYS)
