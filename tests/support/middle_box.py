"""What lies between a client and its server: it can be cut, be away, or swallow everything."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_PIECE = 64 * 1024
_HEAD = 64 * 1024
"""Bytes of each connection that are remembered."""


class MiddleBox:
    """Carries TCP connections from a port of this machine to a server."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.heads: list[bytes] = []
        """How what came from the client began, for each connection."""
        self.is_away = False
        """Nobody gets through any more, nor does anything of who has."""
        self.is_silent = False
        """Everything is swallowed, and nobody is told."""

    @classmethod
    @asynccontextmanager
    async def open(cls, host: str, port: int) -> AsyncIterator["MiddleBox"]:
        """Carry for as long as it is entered."""
        box = cls(host, port)
        server = await asyncio.start_server(box._serve, "127.0.0.1", 0)
        box.port = server.sockets[0].getsockname()[1]
        try:
            yield box
        finally:
            server.close()
            box.cut()
            await server.wait_closed()

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()

    def go_away(self) -> None:
        """Break every connection, and refuse new ones."""
        self.is_away = True
        self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_away:
            writer.transport.abort()
            return
        self._writers.add(writer)
        with contextlib.suppress(OSError):
            up_reader, up_writer = await asyncio.open_connection(*self._target)
            self._writers.add(up_writer)
            self.heads.append(b"")
            await asyncio.gather(
                self._copy(reader, up_writer, len(self.heads) - 1),
                self._copy(up_reader, writer),
                return_exceptions=True,
            )
            up_writer.close()
            self._writers.discard(up_writer)
        writer.close()
        self._writers.discard(writer)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: int | None = None) -> None:
        while data := await reader.read(_PIECE):
            if self.is_silent:
                continue
            if head is not None and len(self.heads[head]) < _HEAD:
                self.heads[head] += data
            writer.write(data)
            await writer.drain()
        writer.close()
