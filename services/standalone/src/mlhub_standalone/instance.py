"""One instance: its name and ports, kept from start to start, and what this start was asked for."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlhub_shared.contracts.identity import HUB_NAME_PATTERN
from mlhub_standalone.data_dir import DataDir, read_json, write_private
from mlhub_standalone.errors import LauncherError
from mlhub_standalone.options import Asked
from mlhub_standalone.ports import PUBLIC, SSH, choose_internal, from_environment


@dataclass(frozen=True)
class Instance:
    """What to start."""

    data: DataDir
    hub_name: str
    host: str
    port: int
    ssh_port: int
    internal: dict[str, int]
    backend: str = "process"
    capacity: int | None = None
    keep_workspaces: bool = False
    warnings: list[str] = field(default_factory=list)

    @property
    def browser_host(self) -> str:
        """What people on this machine type: an address to listen on everywhere is none to go to."""
        return "127.0.0.1" if self.host in {"0.0.0.0", "::", ""} else self.host  # noqa: S104

    @property
    def public_url(self) -> str:
        """The login page."""
        return f"http://{self.browser_host}:{self.port}"

    @property
    def is_open(self) -> bool:
        """Others than this machine can reach it."""
        return self.host not in {"127.0.0.1", "localhost", "::1"}


def plan(data: DataDir, asked: Asked, environment: Mapping[str, str]) -> Instance:
    """The instance to start, from what was asked and what was kept; LauncherError if they don't go together."""
    kept = read_json(data.instance)
    internal, warnings = choose_internal(kept.get("internal", {}), environment)
    return Instance(
        data=data,
        hub_name=_hub_name(asked, kept, environment),
        host=asked.host,
        port=asked.port or from_environment("MLHUB_PROXY_PUBLIC_PORT", environment) or kept.get("port", PUBLIC),
        ssh_port=asked.ssh_port
        or from_environment("MLHUB_SSH_GATEWAY_LISTEN_PORT", environment)
        or kept.get("ssh_port", SSH),
        internal=internal,
        backend=asked.backend,
        capacity=asked.capacity,
        keep_workspaces=asked.keep_workspaces,
        warnings=warnings,
    )


def keep(instance: Instance) -> None:
    """Remember what the next start shall find as it was."""
    content = {
        "hub_name": instance.hub_name,
        "port": instance.port,
        "ssh_port": instance.ssh_port,
        "internal": instance.internal,
    }
    write_private(instance.data.instance, json.dumps(content, indent=2) + "\n")


def _hub_name(asked: Asked, kept: dict[str, Any], environment: Mapping[str, str]) -> str:
    known: str | None = kept.get("hub_name")
    wanted = asked.hub_name or environment.get("MLHUB_HUB_NAME") or environment.get("HUB_NAME")
    name = wanted or known or "mlhub"
    if not re.fullmatch(HUB_NAME_PATTERN, name):
        raise LauncherError(
            f"{name!r} can't name a hub: it takes a letter, then up to 15 letters and digits, all small"
        )
    if known is not None and name != known:
        raise LauncherError(
            f"this data directory belongs to the hub {known!r}, whose workspaces {name!r} would not find; "
            f"a second hub takes another one: mlhub up --hub-name {name} --data-dir ANOTHER"
        )
    return name
