"""One instance: its name and ports, kept from start to start, and what this start was asked for."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from mlhub_shared.contracts.identity import HUB_NAME_PATTERN
from mlhub_standalone import https
from mlhub_standalone.backends import Place, choose
from mlhub_standalone.data_dir import DataDir, read_json, write_private
from mlhub_standalone.engine import Engine, url_of
from mlhub_standalone.errors import LauncherError
from mlhub_standalone.options import DOCKER, PROCESS, Asked
from mlhub_standalone.ports import PUBLIC, SSH, choose_internal, from_environment

T = TypeVar("T")

NETWORK_POOL = "10.113.0.0/16"
"""Where users' networks are cut from, unless set otherwise."""


@dataclass(frozen=True)
class Instance:
    """What to start."""

    data: DataDir
    hub_name: str
    host: str
    port: int
    ssh_port: int
    """0: SSH has none of its own, and comes in by the web's alone."""
    internal: dict[str, int]
    tls: bool = False
    site: str = ""
    """What people type, where they were told another address than this one."""
    backend: str = PROCESS
    why_backend: str = ""
    """As a line for people."""
    engine: Engine = field(default_factory=Engine)
    """What runs the workspaces of the backend `docker`."""
    network_pool: str = NETWORK_POOL
    capacity: int | None = None
    keep_workspaces: bool = False
    in_container: bool = False
    warnings: list[str] = field(default_factory=list)

    @property
    def runs_containers(self) -> bool:
        """Workspaces are containers, which outlive the launcher and all its parts."""
        return self.backend == DOCKER

    @property
    def browser_host(self) -> str:
        """What people on this machine type: an address to listen on everywhere is none to go to."""
        return "127.0.0.1" if self.host in {"0.0.0.0", "::", ""} else self.host  # noqa: S104

    @property
    def public_url(self) -> str:
        """The login page."""
        scheme, usual = ("https", 443) if self.tls else ("http", 80)
        host = f"[{self.browser_host}]" if ":" in self.browser_host else self.browser_host
        return f"{scheme}://{host}" if self.port == usual else f"{scheme}://{host}:{self.port}"

    @property
    def site_hosts(self) -> list[str]:
        """Names under which people come, as far as this side can know them."""
        return list(dict.fromkeys(filter(None, (self.browser_host, urlsplit(self.site).hostname))))

    @property
    def shown_ssh(self) -> tuple[str, int]:
        """Host and port where people are sent by SSH; a container's web port is published in any case."""
        site = urlsplit(self.site or self.public_url)
        host = site.hostname or self.browser_host
        if self.ssh_port and not self.in_container:
            return host, self.ssh_port
        return host, site.port or (443 if site.scheme == "https" else 80)

    @property
    def is_open(self) -> bool:
        """Others than this machine can reach it."""
        return self.host not in {"127.0.0.1", "localhost", "::1"}


def plan(data: DataDir, asked: Asked, environment: Mapping[str, str]) -> Instance:
    """The instance to start, from what was asked and what was kept; LauncherError if they don't go together."""
    kept = read_json(data.instance)
    internal, warnings = choose_internal(kept.get("internal", {}), environment)
    hub_name, engine = _hub_name(asked, kept, environment), Engine(url_of(environment))
    choice = choose(asked.backend, Place(engine, _known_backend(data, kept), asked.in_container, data.profiles))
    if choice.backend == DOCKER:
        _require_own_name(engine, hub_name)
    return Instance(
        data=data,
        hub_name=hub_name,
        host=asked.host,
        port=asked.port or from_environment("MLHUB_PROXY_PUBLIC_PORT", environment) or kept.get("port", PUBLIC),
        ssh_port=_first(
            asked.ssh_port, from_environment("MLHUB_SSH_GATEWAY_LISTEN_PORT", environment), kept.get("ssh_port"), SSH
        ),
        internal=internal,
        tls=_first(asked.tls, https.wanted(environment), kept.get("tls"), False),
        site=environment.get("MLHUB_HUB_PUBLIC_URL", "").rstrip("/"),
        backend=choice.backend,
        why_backend=choice.why,
        engine=engine,
        network_pool=environment.get("MLHUB_SPAWNER_WORKER_NETWORK_POOL") or NETWORK_POOL,
        capacity=asked.capacity,
        keep_workspaces=asked.keep_workspaces,
        in_container=asked.in_container,
        warnings=warnings,
    )


def keep(instance: Instance) -> None:
    """Remember what the next start shall find as it was."""
    content = {
        "hub_name": instance.hub_name,
        "port": instance.port,
        "ssh_port": instance.ssh_port,
        "tls": instance.tls,
        "internal": instance.internal,
        "backend": instance.backend,
        "engine": instance.engine.url,
    }
    write_private(instance.data.instance, json.dumps(content, indent=2) + "\n")


def _first(*said: T | None) -> T:
    return next(value for value in said if value is not None)


def _known_backend(data: DataDir, kept: Mapping[str, Any]) -> str | None:
    if kept.get("backend") == DOCKER:
        return DOCKER
    folder = data.of("spawner-worker") / "workspaces"
    return PROCESS if folder.is_dir() and any(folder.iterdir()) else None


def _require_own_name(engine: Engine, hub_name: str) -> None:
    if others := engine.services(hub_name):
        names = ", ".join(container.name for container in others)
        raise LauncherError(
            f"a hub {hub_name!r} runs on this engine already ({names}), and the two would share their workspaces; "
            f"another one beside it: mlhub up --hub-name ANOTHER --data-dir ANOTHER"
        )


def _hub_name(asked: Asked, kept: dict[str, Any], environment: Mapping[str, str]) -> str:
    known: str | None = kept.get("hub_name")
    wanted = asked.hub_name or environment.get("MLHUB_HUB_NAME") or environment.get("HUB_NAME")
    name = wanted or known or "mlhub"
    if not re.fullmatch(HUB_NAME_PATTERN, name):
        raise LauncherError(
            f"{name!r} can't name a hub: it takes a letter, then up to 15 letters and digits, all small{_instead(name)}"
        )
    if known is not None and name != known:
        raise LauncherError(
            f"this data directory belongs to the hub {known!r}, whose workspaces {name!r} would not find; "
            f"a second hub takes another one: mlhub up --hub-name {name} --data-dir ANOTHER"
        )
    return name


def _instead(name: str) -> str:
    """Names of the first ML Hub had capitals and dashes."""
    near = re.sub(r"[^a-z0-9]", "", name.lower())
    return f", such as {near}" if re.fullmatch(HUB_NAME_PATTERN, near) else ""
