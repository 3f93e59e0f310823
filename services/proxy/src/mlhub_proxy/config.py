"""HAProxy's configuration, generated from the settings alone: routes never change it."""

import hashlib
import ipaddress
import resource
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from urllib.parse import urlsplit

from mlhub_proxy.settings import ProxySettings

CONFIG = "haproxy.cfg"
_PAGES = ("hub-away.html", "unreachable.html")
_MOST_CONNECTIONS = 20_000
_OTHER_FILES = 200
"""Files that HAProxy needs beside two for each connection."""

# The last address stays when a name can't be resolved: an engine's DNS forgets a container while it restarts.
_RESOLVERS = """
resolvers system
  parse-resolv-conf
  hold nx 1h
  hold timeout 1h
  hold refused 1h
  hold other 1h
"""


@dataclass(frozen=True)
class Config:
    """All files that HAProxy reads but the tables, and a fingerprint of their content and the program."""

    files: dict[str, str]
    fingerprint: str


def make_config(settings: ProxySettings, version: str) -> Config:
    """The configuration for this version of HAProxy; the settings hold addresses, as `placed` makes them."""
    hub, resolvers = _hub(settings.hub_url)
    guests, refused = settings.api_networks, settings.refused_networks
    values = {
        "version": version,
        "threads": str(settings.threads),
        "maxconn": str(settings.max_connections or _connections()),
        "public": _listen(settings.public_host, settings.public_port),
        "public_guard": f"tcp-request connection reject if {{ src {_networks(refused)} }}" if refused else "",
        "probe": _listen(settings.probe_host, settings.probe_port),
        "api": _listen(settings.api_host, settings.api_port),
        "internal": _networks(settings.internal_networks),
        "api_guard": f"tcp-request connection reject unless {{ src {_networks(guests)} }}" if guests else "",
        "base": settings.base_url,
        "hub": hub,
        "resolvers": resolvers,
    }
    pages = {name: Template(_packaged(name)).substitute(base=settings.base_url) for name in _PAGES}
    template = Template(_packaged(CONFIG))
    draft = template.substitute(values, fingerprint="")
    digest = hashlib.sha256("\0".join([draft, *pages.values()]).encode()).hexdigest()[:32]
    return Config({CONFIG: template.substitute(values, fingerprint=digest), **pages}, digest)


def _packaged(name: str) -> str:
    return (files("mlhub_proxy") / name).read_text()


def _listen(host: str, port: int) -> str:
    return f"ipv6@{host.strip('[]')}:{port}" if ":" in host else f"{host}:{port}"


def _networks(networks: Iterable[object]) -> str:
    return " ".join(str(network) for network in networks)


def _hub(url: str) -> tuple[str, str]:
    """The address of the hub's server line, and what it takes to resolve it."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return f"{host}:{port} resolvers system init-addr last,libc,none", _RESOLVERS
    return (f"ipv6@{ip}:{port}" if ip.version == 6 else f"{ip}:{port}"), ""


def _connections() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return max(50, min(_MOST_CONNECTIONS, (limit - _OTHER_FILES) // 2))
