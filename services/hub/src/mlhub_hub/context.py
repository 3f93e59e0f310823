"""What every part of the hub may need, in one place: `settings["mlhub"]` of the web application."""

from dataclasses import dataclass

from mlhub_hub.settings import HubSettings
from mlhub_shared.bus import Bus, Table
from mlhub_shared.contracts.options import Policy
from mlhub_shared.contracts.services import ProxyState, WorkerLease
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.runtime.clock import Clock, utc_now

SETTINGS_KEY = "mlhub"
"""Where handlers find the context: `self.settings[SETTINGS_KEY]`."""


@dataclass
class HubContext:
    """The hub's settings, its bus, and the tables it follows."""

    settings: HubSettings
    bus: Bus
    workspaces: Table[WorkspaceRecord]
    """By workspace name."""
    workers: Table[WorkerLease]
    """By node."""
    proxies: Table[ProxyState]
    """By replica."""
    policy: Policy
    """What anybody may ask for."""
    clock: Clock = utc_now

    @classmethod
    def follow(cls, settings: HubSettings, bus: Bus) -> "HubContext":
        """Start to follow what the hub needs to know."""
        return cls(
            settings=settings,
            bus=bus,
            workspaces=bus.start_table(bus.workspaces),
            workers=bus.start_table(bus.workers),
            proxies=bus.start_table(bus.proxies),
            policy=settings.policy_of_backend(),
        )
