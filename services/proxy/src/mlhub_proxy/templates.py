"""Pieces of HAProxy's configuration: packaged text with places to fill, and how addresses are written there."""

import ipaddress
from collections.abc import Iterable, Mapping
from importlib.resources import files
from string import Template

UNKNOWN = "0.0.0.0"  # noqa: S104  (never bound)
"""The address of a server that nobody knows yet."""


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


def server(name: str, host: str, port: int, *, most: int = 1) -> str:
    """The line of a server, by its address or its socket (port 0); places for so many, if it is a name."""
    if not port:
        return f"server {name} unix@{host}"
    if not is_name(host):
        return f"server {name} {f'ipv6@{host}' if ':' in host else host}:{port}"
    # Out of work until the agent knows an address: HAProxy's own resolver knows no search domains.
    return f"server-template {name} 1-{most} {UNKNOWN}:{port} disabled"


def is_name(host: str) -> bool:
    """Whether it is to be looked up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False
