"""Answers a request for a workspace only when the hub's death can't undo the answer: its database knows no wishes."""

import asyncio
from typing import Any

from jupyterhub.handlers import BaseHandler
from jupyterhub.user import User

from mlhub_hub.adoption import spawn_in_flight

_ASKED_WITHIN = 3.0
"""Seconds for the bus to take the command; without it the start waits, and so would everybody who asked."""


class AcceptedSpawns(BaseHandler):
    """Mixed into every handler that starts workspaces."""

    async def spawn_single_user(
        self, user: User, server_name: str = "", display_name: str = "", options: dict[str, Any] | None = None
    ) -> None:
        """Start a workspace; returns when the bus has the command, or the start has ended already."""
        spawner = user.spawners[server_name]
        spawner.asked.clear()
        await super().spawn_single_user(user, server_name, display_name, options=options)
        if (spawning := spawn_in_flight(spawner)) is None:
            return
        asked = asyncio.ensure_future(spawner.asked.wait())
        try:
            await asyncio.wait({asked, spawning}, timeout=_ASKED_WITHIN, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
