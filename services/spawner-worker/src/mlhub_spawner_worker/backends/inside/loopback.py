"""The ports of a workspace: connections to them, and listening on them for somebody outside."""

import asyncio
import secrets
from collections.abc import Callable
from functools import partial
from typing import Self

from mlhub_spawner_worker.backends.inside import script
from mlhub_spawner_worker.backends.inside.carrier import Carrier
from mlhub_spawner_worker.backends.inside.connection import InsideConnection
from mlhub_spawner_worker.backends.inside.place import Place
from mlhub_spawner_worker.entry import LOCALHOST, Arrived, Caller, EntryError, Link, Listener

_PATIENCE = 10
"""Seconds for a listener to say where it listens."""
_MOST = 128
"""Connections of one listener at the same time: each is an exec, for the asking by whoever is in the workspace."""
_LONGEST_LINE = 4 * 1024
_LAST_PORT = 65535


class InsideLoopback:
    """A workspace's own loopback."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._carrier: Carrier | None = None
        self._opening = asyncio.Lock()

    async def connect(self, port: int, caller: Caller, *, host: str = LOCALHOST) -> Link:
        """Reach a port; EntryError if nothing listens there, or the image lacks what it takes."""
        async with self._opening:
            if self._carrier is None or not self._carrier.is_open:
                self._carrier = await Carrier.open(self._place)
            carrier = self._carrier
        return await carrier.connect(host, port, caller)

    async def listen(self, port: int, arrived: Arrived) -> Listener:
        """Listen on a port; EntryError if it is taken, or the image lacks what it takes."""
        return await InsideListener.open(self._place, port, arrived)


class InsideListener:
    """A port or a socket in a workspace, and what comes in there."""

    def __init__(self, address: str, link: InsideConnection, calls: set[asyncio.Task[None]]) -> None:
        self.address, self._link, self.calls = address, link, calls
        """Port or path, and what carries the connections."""

    @classmethod
    async def open(cls, place: Place, where: int | None, arrived: Arrived) -> Self:
        """Listen on a port, 0 for any free one, or with None for an SSH agent; EntryError if that can't be."""
        name = f"mlhub-{secrets.token_hex(8)}"
        accept = partial(_take, place, name)
        loop = asyncio.get_running_loop()
        address: asyncio.Future[str] = loop.create_future()
        calls: set[asyncio.Task[None]] = set()

        def heard(line: str) -> None:
            if not address.done():
                address.set_result(line if where is None else str(_port(line)))
            elif len(calls) < _MOST:
                host, _, port = line.rpartition(" ")
                call = arrived(accept, (host, _port(port)))
                calls.add(call)
                call.add_done_callback(calls.discard)

        lines = _Lines(heard)
        lines.link = link = await InsideConnection.begin(place, script.listening(where, name), lines)
        link.resume_reading()
        try:
            async with asyncio.timeout(_PATIENCE):
                return cls(await address, link, calls)
        except TimeoutError as error:
            link.close()
            raise EntryError("the workspace does not say where it listens") from error

    @property
    def port(self) -> int:
        """Its number."""
        return int(self.address)

    def close(self) -> None:
        """Listen no more."""
        self._link.close()

    async def wait(self) -> None:
        """Return once it listens no more."""
        await self._link.wait()


async def _take(place: Place, name: str, caller: Caller) -> Link:
    return await InsideConnection.begin(place, script.taking(name), caller)


def _port(text: str) -> int:
    """ValueError if it is none."""
    if not 0 <= (port := int(text)) <= _LAST_PORT:
        raise ValueError(text)
    return port


class _Lines:
    """The client of a program that says lines and reads nothing. It is let go of when it says anything else."""

    def __init__(self, heard: Callable[[str], None]) -> None:
        """`heard` raises ValueError at a line that makes no sense."""
        self._heard, self._rest = heard, b""
        self.link: InsideConnection

    def write(self, data: bytes, *, is_error: bool = False) -> None:
        if is_error:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            for line in lines:
                self._heard(line.decode(errors="replace"))
            is_understood = len(self._rest) <= _LONGEST_LINE
        except ValueError:
            is_understood = False
        if not is_understood:
            self._rest = b""
            self.link.let_go()

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass
