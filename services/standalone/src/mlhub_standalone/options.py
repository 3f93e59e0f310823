"""What a start is asked for."""

from dataclasses import dataclass

AUTO, PROCESS, DOCKER = "auto", "process", "docker"
"""Backends, and to choose between them by what this machine can do."""


@dataclass(frozen=True)
class Asked:
    """The options of `mlhub up`. None: what the last start used, else the default."""

    port: int | None = None
    ssh_port: int | None = None
    """0: SSH has none of its own, and comes in by the web's."""
    tls: bool | None = None
    host: str = "127.0.0.1"
    hub_name: str | None = None
    backend: str = PROCESS
    capacity: int | None = None
    keep_workspaces: bool = False
    in_container: bool = False
    """All of it is one container."""
