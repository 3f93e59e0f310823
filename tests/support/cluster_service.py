"""A Service: one address before all pods that take requests now, as a cluster's nodes make it."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from itertools import count

from mlhub_shared.tasks import end_tasks

Place = tuple[str, int]
"""Address and port."""

_MUCH = 65536


class Balancer:
    """Hands every new connection to the next of the pods; what is open stays where it is."""

    def __init__(self, pods: Callable[[], Sequence[str]], port: int) -> None:
        """`pods`: the addresses of those that take connections, by now; `port`: theirs."""
        self._pods, self._port = pods, port
        self._turn = count()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, place: Place) -> None:
        """Listen there."""
        self._server = await asyncio.start_server(self._accept, *place)

    async def aclose(self) -> None:
        """End every connection, and take no more."""
        if self._server is not None:
            self._server.close()
        await end_tasks(*self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pods = self._pods()
        try:
            if not pods:
                raise ConnectionRefusedError
            far_reader, far_writer = await asyncio.open_connection(pods[next(self._turn) % len(pods)], self._port)
        except OSError:
            writer.transport.abort()
            return
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            writer.close()
            far_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_MUCH):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        # As a packet that resets: the other end hears of it, too.
        with contextlib.suppress(OSError):
            writer.transport.abort()
