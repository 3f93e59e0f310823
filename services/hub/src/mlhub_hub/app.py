"""JupyterHub with the bus at its side."""

import asyncio
from contextlib import suppress

from jupyterhub.app import JupyterHub
from traitlets import Instance

from mlhub_hub.context import SETTINGS_KEY, HubContext
from mlhub_hub.settings import HubSettings
from mlhub_shared.bus import Bus


class MLHub(JupyterHub):
    """Opens the bus before there are users, and closes it last."""

    name = "mlhub"
    hub_settings = Instance(HubSettings)
    context: HubContext | None = None

    async def init_users(self) -> None:
        """Open the bus: configuration and database are there, spawners are not yet."""
        bus = await Bus.open(self.hub_settings.bus("hub"))
        self.context = HubContext.follow(self.hub_settings, bus)
        await self.context.workspaces.synced()
        self.tornado_settings[SETTINGS_KEY] = self.context
        await super().init_users()

    async def cleanup(self) -> None:
        """Close the bus after everything else, but never wait long for it."""
        await super().cleanup()
        if self.context is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.context.bus.close(), 5)


def main() -> None:
    """Run the hub until SIGTERM or SIGINT."""
    MLHub.launch_instance()
