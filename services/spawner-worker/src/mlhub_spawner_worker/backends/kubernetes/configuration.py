"""What the kubernetes backend is told by the worker's settings."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

from mlhub_shared.contracts.policy import Profile

Pull = Literal["missing", "always", "never"]


@dataclass(frozen=True)
class KubernetesSettings:
    """One namespace for the workspaces of one hub."""

    hub: str
    profiles: tuple[Profile, ...]
    kubeconfig: Path | None = None
    """None: as the service account of the worker's own pod."""
    namespace: str | None = None
    """Of the workspaces. None: the worker's own, or that of the kubeconfig's context."""
    services_namespace: str | None = None
    """Where proxy and SSH gateway run. None: the worker's own; outside of a cluster any."""
    api_port: int = 8002
    """Of the proxy, where workspaces find the hub's API."""
    pull: Pull = "missing"
    stop_grace: timedelta = timedelta(seconds=5)
    """Between the polite signal and the one that can't be refused, whoever ends a pod."""
    prepare_timeout: timedelta = timedelta(minutes=15)
    """For room in the cluster, and the image."""
    unreachable: timedelta = timedelta(minutes=5)
    """How long a node may be away before the cluster gives up what runs there."""
    open_to: tuple[str, ...] = ()
    """Private addresses and networks that workspaces may reach all the same."""
    closed_to: tuple[str, ...] = ()
    """Public ones that they may not: the nodes' own."""
    dns: tuple[str, ...] = ()
    """Addresses that they may ask for names, and for nothing else, beside the cluster's own DNS."""
    keep_volumes: timedelta = timedelta(0)
    """Of deleted workspaces: no cluster can do that for a while, so this is only answered."""
    image_patience: timedelta = timedelta(seconds=20)
    """For an image that the registry does not have or does not give; kubelets try again after 15 s."""
    gone_within: timedelta = timedelta(seconds=20)
    """For something to be gone beyond its grace; after that people are told what holds it."""
