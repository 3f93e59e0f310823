"""The parts of an instance: what is run, where it answers, and how one sees that it works."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlhub_standalone.credentials import Credentials
from mlhub_standalone.environment import MARK, environment_of
from mlhub_standalone.instance import Instance
from mlhub_standalone.ports import LOOPBACK

NATS = "nats"

SERVICES = ("spawner-worker", "proxy", "hub", "cleanup", "ssh-gateway")
"""In the order in which they are started; they end in reverse."""


@dataclass(frozen=True)
class Check:
    """A request that answers below 400 when the component works; no path: a connection is enough."""

    port: int
    path: str = ""
    host: str = LOOPBACK


@dataclass(frozen=True)
class Component:
    """One process to be kept running."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(repr=False)
    address: str
    """Where it serves, for people."""
    checks: tuple[Check, ...]


def nats_component(instance: Instance, binary: str, person: Mapping[str, str]) -> Component:
    """The embedded bus."""
    port = instance.internal["nats"]
    return Component(
        name=NATS,
        command=[binary, "-c", str(instance.data.nats_config)],
        environment={name: person[name] for name in ("PATH", "HOME") if name in person}
        | {MARK: str(instance.data.root)},
        address=f"{LOOPBACK}:{port}",
        checks=(Check(port),),
    )


def service_components(instance: Instance, credentials: Credentials, person: Mapping[str, str]) -> list[Component]:
    """Every service, in the order of their start."""
    return [
        Component(
            name=service,
            command=[sys.executable, "-m", f"mlhub_{service.replace('-', '_')}"],
            environment=environment_of(service, instance, credentials, person),
            address=_addresses(instance)[service],
            checks=_checks(instance)[service],
        )
        for service in SERVICES
    ]


def _addresses(instance: Instance) -> dict[str, str]:
    port = instance.internal
    return {
        "spawner-worker": f"{LOOPBACK}:{port['spawner-worker']}",
        "proxy": instance.public_url,
        "hub": f"{LOOPBACK}:{port['hub']}",
        "cleanup": f"{LOOPBACK}:{port['cleanup']}",
        "ssh-gateway": f"ssh -p {instance.ssh_port} NAME@{instance.browser_host}",
    }


def _checks(instance: Instance) -> dict[str, tuple[Check, ...]]:
    port = instance.internal
    public = Check(instance.port, "/hub/health", instance.browser_host)
    return {
        "spawner-worker": (Check(port["spawner-worker"], "/ready"),),
        "proxy": (Check(port["proxy"], "/ready"), public),
        "hub": (Check(port["hub"], "/hub/health"),),
        "cleanup": (Check(port["cleanup"], "/ready"),),
        "ssh-gateway": (Check(port["ssh-gateway"], "/ready"), Check(instance.ssh_port, host=instance.browser_host)),
    }
