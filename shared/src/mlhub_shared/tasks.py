"""Ending tasks for certain, and waiting for one of several events."""

import asyncio
from datetime import timedelta
from typing import Any

_AGAIN = 0.5
"""Seconds that a cancelled task gets to clean up before it is cancelled once more."""


def stop_if_cancelled() -> None:
    """Raise CancelledError if the current task has been cancelled and went on all the same.

    For loops over the bus: before Python 3.12 `asyncio.wait_for`, which every request goes through, forgets a
    cancellation that comes in the same turn of the event loop as the answer.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def end_tasks(*tasks: "asyncio.Task[Any]", within: timedelta | None = None) -> bool:
    """Cancel tasks until each has ended; what they raise is dropped.

    False if some have not `within` that time (None: as long as it takes). Cancelling once may not be enough: see
    `stop_if_cancelled`, without which a loop would go on for ever.
    """
    loop = asyncio.get_running_loop()
    deadline = None if within is None else loop.time() + within.total_seconds()
    waiting = {task for task in tasks if not task.done()}
    while waiting:
        for task in waiting:
            task.cancel()
        left = _AGAIN if deadline is None else min(_AGAIN, deadline - loop.time())
        _, waiting = await asyncio.wait(waiting, timeout=max(left, 0))
        if waiting and deadline is not None and loop.time() >= deadline:
            break
    for task in set(tasks) - waiting:
        if not task.cancelled():
            task.exception()
    return not waiting


async def first_of(*events: asyncio.Event, within: timedelta | None = None) -> None:
    """Wait until one of them is set, or until that time is over."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(
            waiting, timeout=within.total_seconds() if within else None, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        for task in waiting:
            task.cancel()
