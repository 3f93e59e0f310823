"""What a start is asked for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """The options of `mlhub up`. None: what the last start used, else the default."""

    port: int | None = None
    ssh_port: int | None = None
    host: str = "127.0.0.1"
    hub_name: str | None = None
    backend: str = "process"
    capacity: int | None = None
    keep_workspaces: bool = False
