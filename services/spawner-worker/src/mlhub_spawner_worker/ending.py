"""Ending tasks for sure."""

import asyncio
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

_AGAIN = 0.5
"""Seconds after which a task is cancelled once more: before Python 3.12 `asyncio.wait_for` may swallow the first."""


async def end(tasks: Iterable[asyncio.Task[Any]], *, within: timedelta | None = None) -> bool:
    """Cancel tasks until they have ended; False if some have not `within` that time (None: as long as it takes)."""
    left = {task for task in tasks if not task.done()}
    deadline = None if within is None else time.monotonic() + within.total_seconds()
    while left:
        for task in left:
            task.cancel()
        ended, left = await asyncio.wait(left, timeout=_AGAIN)
        for task in ended:
            if not task.cancelled():
                task.exception()  # Looked at, so that asyncio does not complain: nobody waits for it any more.
        if left and deadline is not None and time.monotonic() > deadline:
            return False
    return True
