"""A connection of a workspace, carried by a small program that runs in it."""

import asyncio
import contextlib
from collections.abc import Sequence
from signal import Signals
from typing import Self

from mlhub_shared.errors import MLHubError
from mlhub_spawner_worker.backends.inside import script
from mlhub_spawner_worker.backends.inside.link import ExecLink
from mlhub_spawner_worker.backends.inside.place import Exec, Place, Said
from mlhub_spawner_worker.entry import Caller, Client

_FAREWELL = 1.0
"""Seconds for a program whose input has ended to do so too."""
_LONGEST_TOTAL = 32


class InsideConnection(ExecLink):
    """What ends with its input.

    The engine does not tell when one of a program's outputs has ended. So the program says on its standard error, and
    nothing else there, how many bytes there are; the two may come in any order.
    """

    def __init__(self, place: Place, exec_: Exec, client: Client, *, has_terminal: bool) -> None:
        super().__init__(place, exec_, client, has_terminal=has_terminal)
        self._caller: Caller
        self._closed = asyncio.Event()
        self._passed = 0
        self._total = b""

    @classmethod
    async def begin(cls, place: Place, command: Sequence[str], caller: Caller) -> Self:
        """Start the program; EntryError if it can't be, or has no connection."""
        connection = await cls.open(place, command, caller)
        connection._caller = caller
        return connection

    def close(self) -> None:
        """End the input; what does not end by that is ended."""
        self._closed.set()
        self.write_eof()
        self.resume_reading()

    async def wait(self) -> int:
        """Return when it has ended."""
        closed = asyncio.ensure_future(self._closed.wait())
        await asyncio.wait([closed, self._work], return_when=asyncio.FIRST_COMPLETED)
        closed.cancel()
        await asyncio.wait([self._work], timeout=_FAREWELL)
        if not self._has_ended:
            with contextlib.suppress(MLHubError):
                await self._place.do(script.kill(Signals.SIGTERM, self.group))
            self.let_go()
            await self.ended()
        return 0

    def _hand_over(self, said: Said) -> None:
        if said.is_error:
            self._total += said.data
            if len(self._total) > _LONGEST_TOTAL:
                self.let_go()
        else:
            self._passed += len(said.data)
            super()._hand_over(said)
        if self._total == b"%d\n" % self._passed:
            self._total = b""
            self._caller.write_eof()
