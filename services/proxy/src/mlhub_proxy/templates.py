"""Pieces of HAProxy's configuration: packaged text with places to fill, and how addresses are written there."""

import ipaddress
from collections.abc import Iterable, Mapping
from importlib.resources import files
from string import Template


def filled(name: str, values: Mapping[str, str]) -> str:
    """A packaged file with its places filled."""
    return Template(packaged(name)).substitute(values)


def packaged(name: str) -> str:
    """A packaged file as it is."""
    return (files("mlhub_proxy") / name).read_text()


def listen(host: str, port: int) -> str:
    """What a `bind` line takes."""
    if host.strip("[]") == "::":
        # Two sockets: one for both would tell IPv4 addresses in IPv6's way.
        return f"0.0.0.0:{port},ipv6@:::{port} v6only"
    return f"ipv6@{host.strip('[]')}:{port}" if ":" in host else f"{host}:{port}"


def networks(found: Iterable[object]) -> str:
    """The values of an access list."""
    return " ".join(str(network) for network in found)


def server(host: str, port: int) -> str:
    """What a `server` line takes; a name is asked for again and again."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return f"{host}:{port} resolvers system init-addr last,libc,none"
    return f"ipv6@{ip}:{port}" if ip.version == 6 else f"{ip}:{port}"
