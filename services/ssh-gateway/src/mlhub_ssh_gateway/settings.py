"""The gateway's settings: `MLHUB_SSH_GATEWAY_<NAME>`, beside the common ones."""

import ipaddress
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import NoDecode, SettingsConfigDict

from mlhub_shared.runtime.settings import CommonSettings


def _seconds(value: object) -> object:
    """A bare number counts seconds, also where it comes as the text of a variable."""
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    return value


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Network = ipaddress.IPv4Network | ipaddress.IPv6Network

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

    login_timeout: Seconds = timedelta(seconds=20)
    """For a client to prove who it is."""

    max_handshakes: PositiveInt = 64
    """Unauthenticated connections in work at once, over all addresses."""

    max_handshakes_per_address: PositiveInt = 4
    """Of those, from one address; the rest of its connections wait."""

    max_waiting: PositiveInt = 512
    """Connections that wait for their turn; more are closed at once."""

    connections_per_second: PositiveFloat = 20
    """New connections of one address, on the average; more are closed at once."""

    keepalive: Seconds = timedelta(seconds=30)
    """Between signs of life asked of a client; three without an answer end it."""

    activity_interval: Seconds = timedelta(seconds=60)
    """Between reports to the hub that a workspace is in use."""
