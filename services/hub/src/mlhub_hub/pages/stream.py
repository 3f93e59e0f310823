"""Live updates: Server-Sent Events of what changed on a page."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from tornado.iostream import StreamClosedError

from mlhub_hub.pages.base import PageHandler

_KEEP_ALIVE = timedelta(seconds=15)
_LONGEST = timedelta(minutes=10)
"""Then the browser connects anew, and is asked again who it is."""

Look = Callable[[], Awaitable[dict[str, Any] | None]]
"""Says what to send after something may have changed; None: nothing."""


class StreamHandler(PageHandler):
    """A page's event stream; ends with the browser's connection."""

    coalesce = timedelta(milliseconds=150)
    """Many changes in a row become one update."""

    def initialize(self) -> None:
        """Nobody has gone yet."""
        self._gone = asyncio.Event()
        self._woken = asyncio.Event()

    def get_content_type(self) -> str:
        """As EventSource expects it."""
        return "text/event-stream"

    def on_connection_close(self) -> None:
        """The browser went away."""
        self._gone.set()
        self._woken.set()

    def wake(self) -> None:
        """Something may have changed."""
        self._woken.set()

    async def wake_on(self, source: AsyncIterator[Any], relevant: Callable[[Any], bool]) -> None:
        """Wake whenever the source yields something relevant; runs until cancelled."""
        async for item in source:
            if relevant(item):
                self.wake()

    async def stream(self, look: Look) -> None:
        """Send what `look` says, at first and whenever woken, until the browser goes or it says `end`."""
        self.set_header("X-Accel-Buffering", "no")
        loop = asyncio.get_running_loop()
        until = loop.time() + _LONGEST.total_seconds()
        with suppress(StreamClosedError):
            while not self._gone.is_set() and loop.time() < until:
                self._woken.clear()
                update = await look()
                await self._send(update)
                if update is not None and update.get("end"):
                    return
                await self._until_woken()

    async def _until_woken(self) -> None:
        try:
            await asyncio.wait_for(self._woken.wait(), _KEEP_ALIVE.total_seconds())
        except TimeoutError:
            return
        await asyncio.sleep(self.coalesce.total_seconds())

    async def _send(self, update: dict[str, Any] | None) -> None:
        self.write(": still here\n\n" if update is None else f"data: {json.dumps(update)}\n\n")
        await self.flush()
