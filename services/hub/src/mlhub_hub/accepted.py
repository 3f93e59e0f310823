"""Answers a request for a workspace only when the hub's death can't undo the answer: its database knows no wishes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from jupyterhub.user import User

from mlhub_hub.adoption import spawn_in_flight
from mlhub_hub.server_names import CheckedNames
from mlhub_hub.spawner import BusSpawner

_ASKED_WITHIN = 3.0
"""Seconds for the bus to take the command; without it the start waits, and so would everybody who asked."""

_TURN_WITHIN = 1.0
"""Seconds to wait for one's turn in a crowd; after that all go on together."""


class AcceptedSpawns(CheckedNames):
    """Mixed into every handler that starts workspaces."""

    async def spawn_single_user(
        self, user: User, server_name: str = "", display_name: str = "", options: dict[str, Any] | None = None
    ) -> None:
        """Start a workspace; returns when the bus has the command, or the start has ended already."""
        spawner = user.spawners[server_name]
        spawner.asked.clear()
        # In turn: the hub has one thread, and taken up all together even the first would be through with the last.
        async with _turn(spawner.mlhub.starts):
            await super().spawn_single_user(user, server_name, display_name, options=options)
            await _asked(spawner)


@asynccontextmanager
async def _turn(turns: asyncio.Semaphore) -> AsyncIterator[None]:
    try:
        await asyncio.wait_for(turns.acquire(), _TURN_WITHIN)
    except TimeoutError:
        yield
        return
    try:
        yield
    finally:
        turns.release()


async def _asked(spawner: BusSpawner) -> None:
    if (spawning := spawn_in_flight(spawner)) is None:
        return
    asked = asyncio.ensure_future(spawner.asked.wait())
    either: set[asyncio.Future[Any]] = {asked, spawning}
    try:
        await asyncio.wait(either, timeout=_ASKED_WITHIN, return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()
