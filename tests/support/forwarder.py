"""A way to a unix socket that can be cut and mended: for what happens when its server is away."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from mlhub_shared.tasks import end_tasks


class Forwarder:
    """Listens at a path of its own and carries bytes to another one."""

    def __init__(self, target: str, path: Path) -> None:
        self._target, self._path = target, path
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Of this end."""
        return f"unix://{self._path}"

    async def mend(self) -> None:
        """Be there."""
        self._server = await asyncio.start_unix_server(self._accept, self._path)

    async def cut(self) -> None:
        """End every connection and accept no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)
        await end_tasks(*self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self._target)
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            writer.close()
            far_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


@contextlib.asynccontextmanager
async def forwarder(target: str) -> AsyncIterator[Forwarder]:
    """A way to that socket, open at first."""
    with tempfile.TemporaryDirectory() as folder:
        way = Forwarder(target, Path(folder) / "socket")
        await way.mend()
        try:
            yield way
        finally:
            await way.cut()
