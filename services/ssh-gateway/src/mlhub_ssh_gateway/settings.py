"""The gateway's settings: `MLHUB_SSH_GATEWAY_<NAME>`, beside the common ones."""

import ipaddress
import re
import socket
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import NoDecode, SettingsConfigDict

from mlhub_shared.contracts.identity import Token
from mlhub_shared.runtime.hosts import OWN, Network, Place
from mlhub_shared.runtime.settings import CommonSettings
from mlhub_ssh_gateway.destinations import parse_pattern
from mlhub_ssh_gateway.ports import parse_address


def _seconds(value: object) -> object:
    """A bare number counts seconds, also where it comes as the text of a variable."""
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    return value


def _split(value: object) -> object:
    if not isinstance(value, str) or value.strip() == OWN:
        return value.strip() if isinstance(value, str) else value
    return [part.strip() for part in value.split(",") if part.strip()]


def _address(text: str) -> str:
    parse_address(text)
    return text


def _patterns(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        parse_pattern(text)
    return texts


def _node() -> str:
    return re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-")[:63] or "ssh-gateway"


Seconds = Annotated[timedelta, BeforeValidator(_seconds), Field(gt=timedelta(0))]
"""Seconds, fractions too."""


class SshGatewaySettings(CommonSettings):
    """Where the gateway listens, whom it asks, and how much it takes from strangers."""

    model_config = SettingsConfigDict(env_prefix="MLHUB_SSH_GATEWAY_", extra="ignore", populate_by_name=True)

    listen_host: str = "127.0.0.1"

    listen_port: int = Field(default=2222, ge=0, lt=65536)
    """0: any free port, which is logged."""

    refused_networks: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_split)] = ()
    """Who gets no answer there, separated by commas: programs in workspaces, which have no business with others."""

    proxied_listen: Annotated[str, AfterValidator(_address)] | None = None
    """`host:port` or `unix:/path`: where a proxy hands on its clients, each behind a PROXY header (version 2).

    The header is believed, so only the proxy may reach it. None: there is no such proxy.
    """

    proxied_from: Annotated[tuple[Place, ...] | Literal["own"], NoDecode, BeforeValidator(_split)] = (
        ipaddress.ip_network("127.0.0.0/8"),
        ipaddress.ip_network("::1/128"),
    )
    """Where such a proxy may call from, networks and names of hosts, separated by commas; a socket needs no such list.

    `own`: the network of the address above, as an engine of containers has made it.
    """

    replica: Token = Field(default_factory=_node)
    """Name of this replica on the bus. Default: the host's."""

    host_key_file: Path = Path(".mlhub/ssh-gateway/host_key")
    """Private key that clients pin; made when missing, its public line beside it in `.pub`."""

    client_key_file: Path = Path(".mlhub/ssh-gateway/client_key")
    """Private key for the workers' attach endpoints; made when missing, its public line beside it in `.pub`."""

    hub_api_url: str = "http://127.0.0.1:8081/hub/api"

    hub_api_token: SecretStr | None = None
    """The gateway's own token at the hub. None: only owners get in, by key, and nothing is started."""

    hub_timeout: Seconds = timedelta(seconds=10)
    """For one answer of the hub."""

    start_on_connect: bool = True
    """Connecting to a stopped workspace starts it."""

    start_timeout: Seconds = timedelta(minutes=5)
    """For a workspace to become ready while somebody waits in a session, the time in line not counted."""

    reach_timeout: Seconds = timedelta(seconds=20)
    """For a ready workspace to be entered; a worker that restarts is away for seconds."""

    quiet_after_stop: Annotated[timedelta, BeforeValidator(_seconds), Field(ge=timedelta(0))] = timedelta(seconds=60)
    """Who was in a workspace when it was stopped on request does not wake it so long just by connecting again."""

    forward_outward: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_patterns)] = ()
    """Where forwarded ports may lead beside the workspace itself, from inside it: `host:port`, separated by commas.

    Either part may be or contain `*`; `*` alone is everything that the workspace reaches.
    """

    max_failures: PositiveInt = 10
    """Wrong tokens in a row, of one login name from one address, before none is looked at for a while."""

    login_timeout: Seconds = timedelta(seconds=20)
    """For a client to prove who it is."""

    max_handshakes: PositiveInt = 64
    """Unauthenticated connections in work at once, over all addresses."""

    max_handshakes_per_address: PositiveInt = 4
    """Of those, from one address; the rest of its connections wait."""

    max_waiting: PositiveInt = 512
    """Connections that wait for their turn; more are closed at once."""

    connections_per_second: PositiveFloat = 10
    """New connections of one address, on the average; more wait for their turn."""

    logins_per_second: PositiveFloat = 10
    """Of one user or service, from wherever, on the average; more wait for their turn."""

    max_connections: PositiveInt = 100
    """Of one user or service, open at once."""

    keepalive: Seconds = timedelta(seconds=30)
    """Between signs of life asked of a client; three without an answer end it."""

    activity_interval: Seconds = timedelta(seconds=60)
    """Between reports to the hub that a workspace is in use."""
