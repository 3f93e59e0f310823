"""The parts of one instance."""

import sys
from collections.abc import Mapping

from mlhub_standalone.component import INHERITED, NATS, PRIVATE, SERVICES, Check, Component
from mlhub_standalone.credentials import Credentials
from mlhub_standalone.data_dir import MARK
from mlhub_standalone.environment import environment_of
from mlhub_standalone.instance import Instance
from mlhub_standalone.ports import LOOPBACK

_START_PEOPLES_PROGRAMS = {"spawner-worker"}
"""Hand their umask on to workspaces, whose files are for their owners to open to others."""


def nats_component(instance: Instance, binary: str, person: Mapping[str, str]) -> Component:
    """The embedded bus."""
    port = instance.internal[NATS]
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
            umask=INHERITED if service in _START_PEOPLES_PROGRAMS else PRIVATE,
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
        "ssh-gateway": "ssh -p {1} NAME@{0}".format(*instance.shown_ssh),
    }


def _checks(instance: Instance) -> dict[str, tuple[Check, ...]]:
    port = instance.internal
    certificate = str(instance.data.certificate) if instance.tls else ""
    public = Check(instance.port, "/hub/health", instance.browser_host, certificate)
    own_ssh = (Check(instance.ssh_port, host=instance.browser_host),) if instance.ssh_port else ()
    return {
        "spawner-worker": (Check(port["spawner-worker"], "/ready"),),
        "proxy": (Check(port["proxy"], "/ready"), public),
        "hub": (Check(port["hub"], "/hub/health"),),
        "cleanup": (Check(port["cleanup"], "/ready"),),
        "ssh-gateway": (Check(port["ssh-gateway"], "/ready"), *own_ssh),
    }
