"""The networks that this machine is on, for listeners that only their neighbours may use."""

import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path

ROUTES = Path("/proc/net/route")
"""The kernel's own table, IPv4: interface, destination, gateway, ..., mask; numbers in hexadecimal, bytes reversed."""


def network_of(host: str, routes: Path = ROUTES) -> ipaddress.IPv4Network:
    """The network that this machine is on by that address of its own (IPv4); OSError or ValueError if it is on none."""
    address = ipaddress.IPv4Address(socket.gethostbyname(host))
    if address.is_loopback:
        return ipaddress.IPv4Network("127.0.0.0/8")
    found = [network for network in _connected(routes.read_text()) if address in network]
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
