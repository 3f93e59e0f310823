"""Tasks that belong to a cluster and end with it."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from mlhub_shared.tasks import end_tasks


class Tasks:
    """Keeps tasks from being forgotten, and tells of those that failed."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def create(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start one."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def end(self, patience: float) -> None:
        """Wait for so many seconds, and end those that have not ended by themselves."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        await end_tasks(*self._tasks)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler(
                {"message": "the fake cluster failed", "exception": error, "task": task}
            )
