"""One request at a time where a workspace is started or removed.

JupyterHub takes a server from its database some time after the request to remove it; one that was started in between
would go with it, and its workspace would run with nobody who knows of it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from jupyterhub.user import User
from tornado import web

from mlhub_hub.context import HubContext

_PATIENCE = 45.0
"""Seconds that a request waits for another one about the same workspace: longer than a removal may take."""

_REMOVED_WITHIN = 40.0
"""Seconds that a removal may take, the stop before it included."""

_LOOK = 0.02


@asynccontextmanager
async def alone(context: HubContext, user: str, servers: Iterable[str]) -> AsyncIterator[None]:
    """Keep other requests from starting or removing these workspaces; HTTP 409 if one of them does not end."""
    async with AsyncExitStack() as stack:
        for server in sorted(servers):
            lock = context.locks.setdefault(f"{user}/{server}", asyncio.Lock())
            try:
                async with asyncio.timeout(_PATIENCE):
                    await lock.acquire()
            except TimeoutError:
                message = f"The workspace {user}/{server} is still being started or deleted. Try again in a moment."
                raise web.HTTPError(409, message) from None
            stack.callback(lock.release)
        yield


async def until_removed(user: User, server: str) -> None:
    """Wait, for a while, until JupyterHub's database has the server no more."""
    try:
        async with asyncio.timeout(_REMOVED_WITHIN):
            while server in user.orm_spawners:  # noqa: ASYNC110  (JupyterHub tells nobody)
                await asyncio.sleep(_LOOK)
    except TimeoutError:
        return
