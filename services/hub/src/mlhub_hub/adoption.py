"""Makes a spawn that outlived the hub a normal spawn of the new one.

At its start JupyterHub asks every server of its database for its URL, and holds it in a state (`check`) in which there
is no progress to see and no way to stop it. As long as `get_url` waits in `adopt`, the server is what it really is: a
pending spawn. There is no public way, so this is the one file that touches private attributes of a
Spawner. Those are `Any` here: JupyterHub's own types know only their defaults.
"""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

_CHECK_INTERVAL = 0.02
"""Seconds between two looks at JupyterHub's check, which tells nobody when it ends."""


async def adopt(spawner: Any, decision: Coroutine[Any, Any, None]) -> bool:
    """Wait for the end of a spawn, which `decision` raises if it failed; False if a DELETE came in between."""
    waiting = asyncio.ensure_future(decision)
    future = asyncio.ensure_future(_until_checked(spawner, waiting))
    spawner._spawn_pending = True
    spawner._spawn_future = future
    future.add_done_callback(partial(_clear, spawner))
    await asyncio.wait([waiting])
    return not waiting.cancelled()


def spawn_in_flight(spawner: Any) -> "asyncio.Future[None] | None":
    """The spawn that goes on; None if there is none, or it is over."""
    future: asyncio.Future[None] | None = spawner._spawn_future
    return None if future is None or future.done() else future


async def cancel_spawn(spawner: Any) -> None:
    """End a pending spawn as JupyterHub's DELETE does; the workspace may be on its way and is still to be stopped."""
    future = spawner._spawn_future
    if spawner.pending == "spawn" and future is not None:
        future.cancel()
        await asyncio.wait([future])


async def _until_checked(spawner: Any, waiting: "asyncio.Future[None]") -> None:
    try:
        await asyncio.wait([waiting])
        # Not before the check is over: only then is the server ready, or has somebody to tell that it failed.
        while spawner._check_pending:  # noqa: ASYNC110
            await asyncio.sleep(_CHECK_INTERVAL)
    except asyncio.CancelledError:
        # How JupyterHub's DELETE ends a pending spawn; it expects nothing to be pending a second later.
        spawner._spawn_pending = spawner._check_pending = False
        waiting.cancel()
        raise
    try:
        await waiting
    except Exception:
        await spawner.poll_and_notify()
        raise


def _clear(spawner: Any, future: "asyncio.Future[None]") -> None:
    failed = not future.cancelled() and future.exception() is not None
    if spawner._spawn_future is not future:
        return
    spawner._spawn_pending = False
    if not failed:
        spawner._spawn_future = None
