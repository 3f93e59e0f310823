"""What the docker backend is told by the worker's settings."""

from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Network
from pathlib import Path
from typing import Literal

from mlhub_shared.contracts.policy import Profile

Pull = Literal["missing", "always", "never"]
Reach = Literal["host", "services", "self", "published"]


@dataclass(frozen=True)
class ReachSettings:
    """How workspaces are reached, and what they may reach."""

    reach: Reach = "host"
    network_pool: IPv4Network = field(default_factory=lambda: IPv4Network("10.113.0.0/16"))
    """Cut into one network for each user."""
    network_size: int = 26
    """Prefix length of a user's network."""
    firewall: bool = True
    firewall_image: str | None = None
    """Of containers that live for a moment. None: that of this worker's own container, else its default one."""
    api_port: int = 8002
    """Where workspaces find the hub's API."""
    publish_address: str | None = None
    """Of this node, for `published`."""
    publish_to: tuple[str, ...] = ()
    """Addresses and networks that may use published ports."""
    proxy_address: str | None = None
    """Where workspaces find the proxy, for `published`."""
    closed_to: tuple[str, ...] = ()
    """Addresses and networks that no workspace may reach."""


@dataclass(frozen=True)
class DockerSettings:
    """One engine, one hub, one data directory."""

    hub: str
    data_dir: Path
    engine_url: str
    profiles: tuple[Profile, ...]
    cert_dir: Path | None = None
    """Client certificate, its key and the CA of an engine that is reached by TLS."""
    pull: Pull = "missing"
    registry_logins: Path | None = None
    """A file as `docker login` writes it. None: no registry is told who asks."""
    engine_calls: int = 8
    """Workspaces whose containers are made at the same time."""
    gpus: str = ""
    """Empty: none; `auto`: what the engine says; else ids, separated by commas."""
    keep_volumes: timedelta = timedelta(0)
    """How long the volume of a deleted workspace is kept."""
    max_log_bytes: int = 1024 * 1024
    reach: ReachSettings = field(default_factory=ReachSettings)
