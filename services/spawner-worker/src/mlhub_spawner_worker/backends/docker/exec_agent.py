"""A client's SSH agent, which this machine has a socket of, for the programs in a container."""

import asyncio
import contextlib
from pathlib import Path
from typing import Self

from mlhub_spawner_worker.backends.docker.exec_link import Place
from mlhub_spawner_worker.backends.docker.exec_loopback import ContainerListener
from mlhub_spawner_worker.entry import Accept, EntryError, Link


class AgentForward:
    """A socket in the container whose connections go to the agent."""

    def __init__(self, listener: ContainerListener, calls: set[asyncio.Task[None]]) -> None:
        self._listener, self._calls = listener, calls

    @property
    def path(self) -> str:
        """In the container."""
        return self._listener.address

    @classmethod
    async def open(cls, place: Place, agent: Path) -> Self:
        """Offer the agent of this socket; EntryError if that can't be."""
        calls: set[asyncio.Task[None]] = set()

        def arrived(accept: Accept, _: tuple[str, int]) -> None:
            task = asyncio.ensure_future(_carry(accept, agent))
            calls.add(task)
            task.add_done_callback(calls.discard)

        return cls(await ContainerListener.open(place, None, arrived), calls)

    def close(self) -> None:
        """Offer it no more."""
        self._listener.close()

    async def wait(self) -> None:
        """Return once it is closed; what still asks the agent is cut off."""
        await self._listener.wait()
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls)


async def _carry(accept: Accept, agent: Path) -> None:
    call = _Call()
    with contextlib.suppress(EntryError, OSError):
        call.link = await accept(call)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: call, str(agent))
            call.link.resume_reading()
        except OSError:
            call.link.close()
        finally:
            await call.end()


class _Call(asyncio.Protocol):
    """Both the protocol of the agent's socket and the caller of the container's link."""

    def __init__(self) -> None:
        self.link: Link
        self._transport: asyncio.Transport | None = None

    # From the agent

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (says what asyncio promises)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.link.write(data)

    def eof_received(self) -> bool:
        self.link.write_eof()
        return True

    def pause_writing(self) -> None:
        self.link.pause_reading()

    def resume_writing(self) -> None:
        self.link.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.link.close()

    # From the program

    def write(self, data: bytes, *, is_error: bool = False) -> None:
        if self._transport is not None and not is_error:
            self._transport.write(data)

    def write_eof(self) -> None:
        if self._transport is not None:
            self._transport.write_eof()

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    async def end(self) -> None:
        """Wait for the program, then let the agent go."""
        try:
            await self.link.wait()
        finally:
            if self._transport is not None:
                self._transport.close()
