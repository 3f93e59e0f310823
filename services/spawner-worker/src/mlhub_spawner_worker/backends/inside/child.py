"""A program that somebody runs in a workspace by its engine."""

import asyncio
import contextlib
from collections.abc import Coroutine
from signal import Signals
from typing import Any

from mlhub_shared.errors import MLHubError, Temporary
from mlhub_spawner_worker.backends.inside import script
from mlhub_spawner_worker.backends.inside.agent import AgentForward
from mlhub_spawner_worker.backends.inside.link import ExecLink
from mlhub_spawner_worker.backends.inside.place import Exec, Place
from mlhub_spawner_worker.entry import Client, Size

_LOST = 255
"""What ssh itself ends with when a connection is lost."""
_TRIES = (0, 1, 2, 4, 8, 16, 30)
"""Seconds between attempts to hang up on a program whose streams are lost."""
_FAREWELL = 2.0
"""Seconds of these that its client waits for."""
_PIPE_PATIENCE = 0.5
"""Seconds for a program to notice a broken pipe before it is hung up."""


class InsideChild(ExecLink):
    """Leader of a session of its own."""

    def __init__(self, place: Place, exec_: Exec, client: Client, *, has_terminal: bool) -> None:
        super().__init__(place, exec_, client, has_terminal=has_terminal)
        self.agent: AgentForward | None = None
        """Ends with the program."""
        self._controls: set[asyncio.Task[None]] = set()
        self._in_turn = asyncio.Lock()
        self._size: Size | None = None
        self._is_closing = False
        self._unwanted_since: float | None = None
        self._is_unwanted = False

    def close_output(self) -> None:
        """Have the next thing it says break its pipe."""
        self._is_unwanted = True

    def resize(self, size: Size) -> None:
        """Tell its terminal the new size."""
        if self._has_terminal:
            self._size = size
            self._control(self._resize())

    def signal(self, number: Signals) -> None:
        """Send a signal to its group, if it still runs."""
        if not self._has_ended:
            self._control(self._do(script.kill(number, self.group)))

    def close(self) -> None:
        """Hang up: what the program left behind on purpose stays, all else of it ends."""
        if not self._has_ended and not self._is_closing:
            self._is_closing = True
            self._control(self._hang_up())

    async def wait(self) -> int:
        """How it ended; the engine tells a signal as 128 and its number, as shells do, and so do we."""
        await self.ended()
        status = None if self._is_closing else await self._exec.ending()
        if status is None and not self._is_closing:
            self._client.write(b"the connection to the workspace is lost\r\n", is_error=True)
            hanging_up = asyncio.ensure_future(self._hang_up_lost())
            await asyncio.wait([hanging_up], timeout=_FAREWELL)
        while self._controls:
            await asyncio.wait(self._controls)
        if self.agent is not None:
            self.agent.close()
            await self.agent.wait()
        return _LOST if status is None else status

    def _is_wanted(self) -> bool:
        if not self._is_unwanted:
            return True
        now = asyncio.get_running_loop().time()
        if self._unwanted_since is None:
            self._unwanted_since = now
            self._control(self._do(script.break_pipe(self.group)))
        elif now - self._unwanted_since > _PIPE_PATIENCE:
            self.close()
        return False

    def _control(self, work: Coroutine[Any, Any, None]) -> None:
        async def in_turn() -> None:
            async with self._in_turn:
                await work

        task = asyncio.ensure_future(in_turn())
        self._controls.add(task)
        task.add_done_callback(self._controls.discard)

    async def _resize(self) -> None:
        if self._size is None:
            return  # one before has done it
        (columns, rows, *_), self._size = self._size, None
        with contextlib.suppress(MLHubError):
            await self._exec.resize(columns, rows)

    async def _do(self, command: list[str]) -> None:
        # What it said may wait for a slow client long after its end, and its number be another's by then.
        with contextlib.suppress(MLHubError):
            if await self._exec.status() is None:
                await self._place.do(command)

    async def _hang_up_lost(self) -> None:
        # Without its streams it is of no use to anybody. What has lost them may be away itself for a while.
        for delay in _TRIES:
            await asyncio.sleep(delay)
            try:
                if await self._exec.status() is None:
                    await self._place.do(script.kill(Signals.SIGHUP, self.group))
            except Temporary:
                continue
            except MLHubError:
                pass  # gone
            return

    async def _hang_up(self) -> None:
        await self._do(script.kill(Signals.SIGHUP, self.group))
        self.let_go()
