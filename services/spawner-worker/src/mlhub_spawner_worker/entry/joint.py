"""A socket of this machine, joined with a link into a workspace."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from mlhub_spawner_worker.entry.contract import Caller, Link


class Reach(Protocol):
    """Makes a link for somebody; EntryError if that can't be."""

    def __call__(self, caller: Caller) -> Awaitable[Link]:
        """Return our end of it."""


class Joint(asyncio.Protocol):
    """Both the protocol of the socket and the caller of the link; nothing is read before they are joined."""

    def __init__(self, made: Callable[["Joint"], None] = lambda _: None) -> None:
        """`made` is told when the socket is connected."""
        self._made = made
        self._link: Link | None = None
        self._transport: asyncio.Transport
        self._is_lost = False

    @property
    def peer(self) -> str:
        """The address of the other end; empty where it has none."""
        name = self._transport.get_extra_info("peername")
        return str(name[0]) if isinstance(name, tuple) else ""

    async def join(self, reach: Reach) -> None:
        """Carry data between the socket and the link until the link has said all; EntryError if there is none."""
        try:
            self._link = link = await reach(self)
            if self._is_lost:
                link.close()
            link.resume_reading()
            self._transport.resume_reading()
            await link.wait()
            self._transport.close()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Cut it off."""
        self._transport.abort()
        if self._link is not None:
            self._link.close()

    # From the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hold what comes."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (says what asyncio promises)
        self._transport = transport
        # Not at once: Debian 12's asyncio begins to read after this, whatever it was told here.
        asyncio.get_running_loop().call_soon(transport.pause_reading)
        self._made(self)

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        if self._link is not None:
            self._link.write(data)

    def eof_received(self) -> bool:
        """It says no more, but still listens."""
        if self._link is not None:
            self._link.write_eof()
        return True

    def pause_writing(self) -> None:
        """It is slow."""
        if self._link is not None:
            self._link.pause_reading()

    def resume_writing(self) -> None:
        """It has caught up."""
        if self._link is not None:
            self._link.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the link."""
        self._is_lost = True
        if self._link is not None:
            self._link.close()

    # From the link

    def write(self, data: bytes, *, is_error: bool = False) -> None:
        """Pass on."""
        if not is_error:
            self._transport.write(data)

    def write_eof(self) -> None:
        """The workspace's side says no more, but still listens."""
        if not self._transport.is_closing():
            self._transport.write_eof()

    def pause_reading(self) -> None:
        """Hold up the socket: the workspace's side is slow."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Let it send again."""
        if not self._transport.is_closing():
            self._transport.resume_reading()
