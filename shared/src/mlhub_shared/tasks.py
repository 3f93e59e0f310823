"""Ending tasks for certain."""

import asyncio
from typing import Any

_AGAIN = 1.0
"""Seconds that a cancelled task gets to clean up before it is cancelled once more."""


def stop_if_cancelled() -> None:
    """Raise CancelledError if the current task has been cancelled and went on all the same.

    For loops over the bus: before Python 3.12 `asyncio.wait_for`, which every request goes through, forgets a
    cancellation that comes in the same turn of the event loop as the answer.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def end_tasks(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks until each has ended; what they raise is dropped.

    Once may not be enough: see `stop_if_cancelled`, without which a loop would go on for ever.
    """
    waiting = {task for task in tasks if not task.done()}
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=_AGAIN)
    for task in tasks:
        if not task.cancelled():
            task.exception()
