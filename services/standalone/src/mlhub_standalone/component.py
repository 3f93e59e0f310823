"""One part of an instance: what is run, where it answers, and how one sees that it works."""

from dataclasses import dataclass, field

from mlhub_standalone.ports import LOOPBACK

NATS = "nats"

SERVICES = ("spawner-worker", "proxy", "hub", "cleanup", "ssh-gateway")
"""In the order in which they are started."""

PRIVATE, INHERITED = 0o077, -1
"""Umasks: what a component writes nobody else may read, or whatever the launcher's own lets them."""


@dataclass(frozen=True)
class Check:
    """A request that answers below 400 when the component works; no path: a connection is enough."""

    port: int
    path: str = ""
    host: str = LOOPBACK
    certificate: str = ""
    """File with the one that it must show, for HTTPS. Empty: HTTP."""


@dataclass(frozen=True)
class Component:
    """One process to be kept running."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(repr=False)
    address: str
    """Where it serves, for people."""
    checks: tuple[Check, ...]
    umask: int = PRIVATE
