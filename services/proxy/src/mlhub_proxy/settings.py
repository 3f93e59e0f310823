"""What can be set of the proxy, from `MLHUB_PROXY_*`."""

import ipaddress
import re
import socket
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from pydantic_settings import NoDecode, SettingsConfigDict

from mlhub_shared.contracts.identity import Token
from mlhub_shared.runtime.settings import CommonSettings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
ListenHost = Annotated[str, StringConstraints(pattern=r"^(\*|\[?[0-9A-Fa-f:.]+\]?|[A-Za-z0-9.-]+)$")]
"""An address, a name or `*`; nothing else may get into HAProxy's configuration."""

Port = Annotated[int, Field(gt=0, lt=65536)]


OWN = "own"
"""In the place of networks: the one on which the probe frontend listens."""


def _split(value: object) -> object:
    if not isinstance(value, str) or value.strip() == OWN:
        return value.strip() if isinstance(value, str) else value
    return [part.strip() for part in value.split(",") if part.strip()]


def _http_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "http" or not re.fullmatch(r"[A-Za-z0-9.:_-]+", parts.hostname or ""):
        raise ValueError("must be http://host:port")
    return url


def _node() -> str:
    return re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-")[:63] or "proxy"


class ProxySettings(CommonSettings):
    """The proxy's settings."""

    model_config = SettingsConfigDict(env_prefix="MLHUB_PROXY_", extra="ignore", populate_by_name=True)

    public_host: ListenHost = "127.0.0.1"
    """Where people come in."""
    public_port: Port = 8080

    refused_networks: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_split)] = ()
    """Who gets no answer there, separated by commas: programs in workspaces, which would find other people's."""

    probe_host: ListenHost = "127.0.0.1"
    """Where the hub and the workers ask whether a workspace answers: an internal address."""
    probe_port: Port = 8003

    api_host: ListenHost = "127.0.0.1"
    """Where workspaces reach the hub's API, and nothing else of it."""
    api_port: Port = 8002

    api_networks: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_split)] = ()
    """Who may use that, separated by commas. None: whoever reaches it."""

    internal_networks: Annotated[tuple[Network, ...] | Literal["own"], NoDecode, BeforeValidator(_split)] = (
        ipaddress.ip_network("127.0.0.0/8"),
        ipaddress.ip_network("::1/128"),
    )
    """Who may use the probe frontend, separated by commas; a bind address alone keeps nobody out.

    `own`: the network of the probe frontend's address, as an engine of containers has made it.
    """

    hub_url: Annotated[str, AfterValidator(_http_address)] = "http://127.0.0.1:8081"
    """Where everything goes that no route claims."""

    base_url: Annotated[str, StringConstraints(pattern=r"^/([A-Za-z0-9._~-]+/)*$")] = "/"
    """The hub's own prefix."""

    data_dir: Path = Path(".mlhub/proxy")
    """HAProxy's configuration, tables, socket and pid file."""

    haproxy: Path | None = None
    """The program. None: the one on PATH if it is new enough, else the one of the wheel."""

    replica: Token = Field(default_factory=_node)
    """Name of this replica on the bus. Default: the host's."""

    threads: Annotated[int, Field(ge=1, le=64)] = 2
    """Of HAProxy."""

    max_connections: Annotated[int, Field(ge=50)] | None = None
    """None: as many as the limit of open files lets through, at most 20,000."""

    activity_interval: Annotated[float, Field(gt=0, le=300)] = 15
    """Seconds between two looks at the byte counters."""

    activity_min_bytes: Annotated[int, Field(ge=1)] = 128
    """Bytes in one interval that count as activity: more than the pings of an open but idle WebSocket."""

    shutdown_grace: Annotated[float, Field(ge=0, le=30)] = 1
    """Seconds that requests in flight get at the end; open WebSockets don't hold it longer."""
