"""What can be set of the proxy, from `MLHUB_PROXY_*`."""

import ipaddress
import re
import socket
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr, StringConstraints, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from mlhub_shared.contracts.identity import Token
from mlhub_shared.runtime.hosts import OWN, Network, Place
from mlhub_shared.runtime.settings import CommonSettings

ListenHost = Annotated[str, StringConstraints(pattern=r"^(\*|\[?[0-9A-Fa-f:.]+\]?|[A-Za-z0-9.-]+)$")]
"""An address, a name or `*`; nothing else may get into HAProxy's configuration."""

Port = Annotated[int, Field(gt=0, lt=65536)]

DomainName = Annotated[str, StringConstraints(to_lower=True, pattern=r"^([A-Za-z0-9_-]+\.)+[A-Za-z0-9-]+$")]
"""As a certificate authority takes it: no wildcard, which it would ask for in another way than ours."""

Destination = tuple[
    Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/-]+$")], Annotated[int, Field(ge=0, lt=65536)]
]
"""Host and port; path of a socket and 0."""


def _split(value: object) -> object:
    if not isinstance(value, str) or value.strip() == OWN:
        return value.strip() if isinstance(value, str) else value
    return [part.strip() for part in value.split(",") if part.strip()]


def _http_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "http" or not re.fullmatch(r"[A-Za-z0-9.:_-]+", parts.hostname or ""):
        raise ValueError("must be http://host:port")
    return url


def _host(name: str) -> str:
    """As certificates have it."""
    try:
        # A zone (fe80::1%eth0) is this machine's own affair: no certificate can have it.
        return str(ipaddress.ip_address(name.strip("[]").partition("%")[0]))
    except ValueError:
        if not re.fullmatch(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", name.lower()):
            raise ValueError("must be a name or an address, without a port") from None
        return name.lower()


def _public_host(url: str) -> tuple[str, ...]:
    """Empty where no certificate can have it."""
    try:
        return (_host(urlsplit(url).hostname or ""),)
    except ValueError:
        return ()


def _gateway(value: object) -> object:
    """Host and port of `host:port`; path and 0 of `unix:/path`."""
    if not isinstance(value, str):
        return value
    if value.startswith("unix:/"):
        return value.removeprefix("unix:"), 0
    host, _, port = value.rpartition(":")
    return host.strip("[]"), port


def _domain(name: object) -> object:
    if name and not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*", str(name)):
        raise ValueError("must be a domain in small letters, such as tools.example.org")
    return name


def _node() -> str:
    return re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-")[:63] or "proxy"


class ProxySettings(CommonSettings):
    """The proxy's settings."""

    model_config = SettingsConfigDict(env_prefix="MLHUB_PROXY_", extra="ignore", populate_by_name=True)

    public_host: ListenHost = "127.0.0.1"
    """Where people come in."""
    public_port: Port = 8080

    tls: bool = Field(default=False, validation_alias=AliasChoices("MLHUB_PROXY_TLS", "SSL_ENABLED"))
    """The public port speaks HTTPS, and sends there whoever speaks plain HTTP."""

    cert_dir: Path | None = None
    """A folder with `cert.crt` and `cert.key`, or `cert.pem` with both; looked at again and again.

    None, or a folder without them: a certificate of an authority if there are `acme_domains`, else one of our own.
    """

    tls_names: Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], NoDecode, BeforeValidator(_split)] = ()
    """Names and addresses by which people reach us, separated by commas, for the certificate of our own."""

    acme_domains: Annotated[tuple[DomainName, ...], NoDecode, BeforeValidator(_split)] = ()
    """Names, separated by commas, for which an authority is asked; it must reach port 80 of each here."""

    acme_email: str | None = None
    """Whom it tells about trouble. None: nobody."""

    acme_directory: Annotated[str, StringConstraints(pattern=r"^https://[^\s]+$")] = (
        "https://acme-v02.api.letsencrypt.org/directory"
    )
    """Of the authority, whose terms of service are agreed to."""

    acme_ca_file: Path | None = None
    """Who is trusted to be the authority. None: what the system trusts."""

    hsts_seconds: Annotated[int, Field(ge=0)] = 0
    """How long browsers are told to accept nothing but HTTPS. 0: they are told nothing."""

    ssh_gateway: Annotated[Destination, NoDecode, BeforeValidator(_gateway)] | None = None
    """`host:port` or `unix:/path`: the public port also takes SSH, and passes it on there by PROXY protocol 2.

    A name may stand for several gateways. None: it does not.
    """

    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_split)] = ()
    """Whose `X-Forwarded-For` (its last address) and `-Proto` are believed, separated by commas."""

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

    internal_networks: Annotated[tuple[Place, ...] | Literal["own"], NoDecode, BeforeValidator(_split)] = (
        ipaddress.ip_network("127.0.0.0/8"),
        ipaddress.ip_network("::1/128"),
    )
    """Who may use the probe frontend: networks and names of hosts, separated by commas.

    A bind address alone keeps nobody out. Names are looked up again and again.

    `own`: the network of the probe frontend's address, as an engine of containers has made it.
    """

    hub_url: Annotated[str, AfterValidator(_http_address)] = "http://127.0.0.1:8081"
    """Where everything goes that no route claims."""

    base_url: Annotated[str, StringConstraints(pattern=r"^/([A-Za-z0-9._~-]+/)*$")] = "/"
    """The hub's own prefix."""

    hub_api_url: Annotated[str, AfterValidator(_http_address)] = "http://127.0.0.1:8081/hub/api"
    """Where to ask who may use the tools of a workspace."""

    hub_api_token: SecretStr | None = None
    """Of the hub's service `proxy`. None: nobody may."""

    tools_domain: Annotated[str, BeforeValidator(_domain)] = ""
    """Every port of a workspace is a site of its own as well: `8050--<workspace's name>.<domain>`. Empty: it is not.

    Name server and certificate have `*.<domain>`, and the public URL must be known.
    """

    public_url: str = Field(default="", validation_alias=AliasChoices("MLHUB_PROXY_PUBLIC_URL", "MLHUB_HUB_PUBLIC_URL"))
    """What people type for the hub; its host is in the certificate of our own, and a domain for tools needs it."""

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

    @model_validator(mode="after")
    def _knows_its_site(self) -> Self:
        if self.tools_domain and not re.fullmatch(r"https?://[^/]+/?", self.public_url):
            raise ValueError("MLHUB_PROXY_TOOLS_DOMAIN needs MLHUB_PROXY_PUBLIC_URL, such as https://hub.example.org")
        return self

    @property
    def served_names(self) -> tuple[str, ...]:
        """Names and addresses by which people reach us: a certificate of our own without one of them does not serve."""
        sites = (f"*.{self.tools_domain}",) if self.tools_domain else ()
        return (*_public_host(self.public_url), *sites, *self.tls_names, *self.acme_domains)
