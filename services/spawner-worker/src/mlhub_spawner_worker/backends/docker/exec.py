"""The way into a running container: what the engine gives for it, by aiodocker."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence

import aiodocker
import aiohttp
from aiodocker.execs import Exec
from aiodocker.stream import Stream
from aiohttp.connector import Connection

from mlhub_shared.errors import MLHubError
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.errors import translated
from mlhub_spawner_worker.backends.inside import InsideEntry, Lost, Said

_ERROR_STREAM = 2
_LOOKS = (0.02, 0.08, 0.4, 1.5)
"""Seconds after which to look again how a program has ended whose streams have: the engine ends them after it."""
_NO_DETACHING = "ctrl-@,ctrl-^,ctrl-@,ctrl-],ctrl-@,ctrl-_,ctrl-@,ctrl-^"
"""The engine watches a terminal's input for keys that detach, and holds back what may become them: by default each ^P.

Of these it holds back the first alone, which in every program waits for the next key anyhow.
"""


class ContainerEntry(InsideEntry):
    """How to enter a container."""

    def __init__(self, engine: Engine, container: str, *, home: str | None) -> None:
        """Programs start in `home`, if it is there; None: where the image says."""
        super().__init__(ContainerPlace(engine, container), home=home)


class ContainerPlace:
    """Implements Place."""

    def __init__(self, engine: Engine, container: str) -> None:
        self._engine, self._name = engine, container

    async def start(
        self, command: Sequence[str], environment: Mapping[str, str], *, has_terminal: bool
    ) -> "ContainerExec":
        """Start it, with its streams over one hijacked connection to the engine."""
        with translated("enter the workspace"):
            exec_ = await self._container.exec(
                command, stdin=True, tty=has_terminal, environment=environment, detach_keys=_NO_DETACHING
            )
            started = ContainerExec(exec_, exec_.start(detach=False))
            await started.begin()
        return started

    async def do(self, command: Sequence[str]) -> None:
        """Run it detached."""
        with translated("signal a program"):
            doing = await self._container.exec(command)
            await doing.start(detach=True)

    @property
    def _container(self) -> aiodocker.containers.DockerContainer:
        return self._engine.docker.containers.container(self._name)


class ContainerExec:
    """Implements Exec."""

    def __init__(self, exec_: Exec, stream: Stream) -> None:
        self._exec, self._stream = exec_, stream

    async def begin(self) -> None:
        """Connect: aiodocker has no public way to without reading or writing."""
        try:
            await self._stream._init()
        except BaseException:
            await self.close()
            raise

    async def read(self) -> Said | None:
        """As aiodocker does, which holds up the engine while nobody reads."""
        with _lost():
            message = await self._stream.read_out()
            return Said(message.data, message.stream == _ERROR_STREAM) if message is not None else None

    async def write(self, data: bytes) -> None:
        """As aiodocker does, which expects a connection."""
        if self._connection is None:
            raise Lost
        with _lost():
            await self._stream.write_in(data)

    async def end_input(self) -> None:
        """Close our half of the connection: aiodocker has no way to."""
        transport = self._connection.transport if self._connection is not None else None
        if transport is not None and transport.can_write_eof():
            transport.write_eof()

    async def resize(self, columns: int, rows: int) -> None:
        """By a call of its own."""
        with translated("resize a terminal"):
            await self._exec.resize(h=rows, w=columns)

    async def status(self) -> int | None:
        """The engine tells no signal from the status that shells make of it."""
        with translated("tell how a program ended"):
            found = await self._exec.inspect()
        return None if found["Running"] or found["ExitCode"] is None else int(found["ExitCode"])

    async def ending(self) -> int | None:
        """Asked for again and again."""
        with contextlib.suppress(MLHubError):
            for delay in (*_LOOKS, 0):
                if (status := await self.status()) is not None:
                    return status
                await asyncio.sleep(delay)
        return None

    async def close(self) -> None:
        """Also one whose connection is gone, which aiodocker's own way does not expect."""
        if self._connection is None:
            self._stream._closed = True
        await self._stream.close()

    @property
    def _connection(self) -> Connection | None:
        return self._stream._resp.connection if self._stream._resp is not None else None


@contextlib.contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except (OSError, aiohttp.ClientError, RuntimeError) as error:
        raise Lost from error
