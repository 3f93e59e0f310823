"""Where this proxy stands: the addresses behind names that an engine of containers gives it."""

import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path

from mlhub_proxy.settings import OWN, ProxySettings

ROUTES = Path("/proc/net/route")
"""The kernel's own table, IPv4: interface, destination, gateway, ..., mask; numbers in hexadecimal, bytes reversed."""


def placed(settings: ProxySettings, routes: Path = ROUTES) -> ProxySettings:
    """With the probe frontend's own network found, if it was asked for; OSError or ValueError if there is none.

    A name that stands for one leg of the proxy becomes its address, so that the frontend is on that leg alone.
    """
    if settings.internal_networks != OWN:
        return settings
    address = ipaddress.IPv4Address(socket.gethostbyname(settings.probe_host))
    return settings.model_copy(
        update={"probe_host": str(address), "internal_networks": (network_of(address, routes.read_text()),)}
    )


def network_of(address: ipaddress.IPv4Address, routes: str) -> ipaddress.IPv4Network:
    """The network that an address of this machine is directly on."""
    found = [network for network in _connected(routes) if address in network]
    if not found:
        raise ValueError(f"{address} is on no network of this machine")
    return max(found, key=lambda network: network.prefixlen)


def _connected(routes: str) -> Iterator[ipaddress.IPv4Network]:
    for line in routes.splitlines()[1:]:
        _, destination, gateway, _, _, _, _, mask, *_ = line.split()
        if int(gateway, 16) == 0 and int(mask, 16) != 0:
            yield ipaddress.IPv4Network((_bytes(destination), str(ipaddress.IPv4Address(_bytes(mask)))))


def _bytes(reversed_hex: str) -> bytes:
    return bytes.fromhex(reversed_hex)[::-1]
