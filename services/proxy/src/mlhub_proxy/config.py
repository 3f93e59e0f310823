"""HAProxy's configuration, generated from the settings alone: routes never change it."""

import hashlib
import resource
from dataclasses import dataclass
from urllib.parse import urlsplit

from mlhub_proxy.entrance import entrance
from mlhub_proxy.neighbours import CALLERS
from mlhub_proxy.settings import ProxySettings
from mlhub_proxy.templates import filled, listen, networks, packaged, server

CONFIG = "haproxy.cfg"
_PAGES = ("hub-away.html", "tools-away.html", "unreachable.html")
_TOOLS = "tools.lua"
_NO_DOMAIN = "tools.invalid"
"""Nobody can have it, and no port has a host there."""
_MOST_CONNECTIONS = 20_000
_OTHER_FILES = 200
"""Files that HAProxy needs beside two for each connection."""


@dataclass(frozen=True)
class Config:
    """All files that HAProxy reads but the tables, and a fingerprint of their content and the program."""

    files: dict[str, str]
    fingerprint: str


def make_config(settings: ProxySettings, version: str) -> Config:
    """The configuration for this version of HAProxy; the settings hold addresses, as `placed` makes them."""
    hub = urlsplit(settings.hub_url)
    guests = settings.api_networks
    connections = settings.max_connections or _connections()
    values = {
        "version": version,
        "threads": str(settings.threads),
        "maxconn": str(connections),
        "probe": listen(settings.probe_host, settings.probe_port),
        "api": listen(settings.api_host, settings.api_port),
        "internal": CALLERS,
        "api_guard": f"tcp-request connection reject unless {{ src {networks(guests)} }}" if guests else "",
        "base": settings.base_url,
        "site_domain": settings.tools_domain or _NO_DOMAIN,
        "hub": server("hub", hub.hostname or "", hub.port or 80),
        **entrance(settings, connections),
    }
    pages = {name: filled(name, {"base": settings.base_url}) for name in _PAGES}
    pages[_TOOLS] = packaged(_TOOLS)
    draft = filled(CONFIG, {**values, "fingerprint": ""})
    digest = hashlib.sha256("\0".join([draft, *pages.values()]).encode()).hexdigest()[:32]
    return Config({CONFIG: filled(CONFIG, {**values, "fingerprint": digest}), **pages}, digest)


def _connections() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return max(50, min(_MOST_CONNECTIONS, (limit - _OTHER_FILES) // 2))
