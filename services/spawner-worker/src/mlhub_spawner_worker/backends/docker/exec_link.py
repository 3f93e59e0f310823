"""The streams of one exec: its input and output over one hijacked connection to the engine."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import aiohttp
from aiodocker.execs import Exec
from aiodocker.stream import Message, Stream
from aiohttp.connector import Connection

from mlhub_shared.errors import MLHubError
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.errors import translated
from mlhub_spawner_worker.backends.docker.exec_script import MARK
from mlhub_spawner_worker.entry import Client, EntryError

_SECONDS_TO_START = 30
ERROR_STREAM = 2
_MOST_WAITING = 256 * 1024
"""Bytes of input that may wait for a program before its client is asked to pause."""
_LONGEST_PREFACE = 8 * 1024
"""Of both its outputs: what is entered need not be what was meant to be."""
_LOST = (OSError, aiohttp.ClientError, RuntimeError)
_NO_DETACHING = "ctrl-@,ctrl-^,ctrl-@,ctrl-],ctrl-@,ctrl-_,ctrl-@,ctrl-^"
"""The engine watches a terminal's input for keys that detach, and holds back what may become them: by default each ^P.

Of these it holds back the first alone, which in every program waits for the next key anyhow.
"""


@dataclass(frozen=True)
class Place:
    """Where execs are made."""

    engine: Engine
    container: str

    async def start(self, command: Sequence[str], environment: Mapping[str, str], *, has_terminal: bool) -> Exec:
        """An exec that is about to run."""
        container = self.engine.docker.containers.container(self.container)
        return await container.exec(
            command, stdin=True, tty=has_terminal, environment=environment, detach_keys=_NO_DETACHING
        )

    async def do(self, command: Sequence[str]) -> None:
        """Run a command as the container's user, and don't wait for its end."""
        container = self.engine.docker.containers.container(self.container)
        with translated("signal a program"):
            doing = await container.exec(command)
            await doing.start(detach=True)


class ExecLink:
    """A running exec as somebody's link to it."""

    def __init__(self, place: Place, exec_: Exec, client: Client, *, has_terminal: bool) -> None:
        self._place, self._exec, self._client, self._has_terminal = place, exec_, client, has_terminal
        self._stream = exec_.start(detach=False)
        self.group = 0
        """Of processes, in the container's own numbering."""
        self._preface: list[Message] = []
        self._may_hand_over = asyncio.Event()
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.waiting = 0
        """Bytes of input."""
        self._is_held = False
        self._work: asyncio.Task[None]

    @classmethod
    async def open(
        cls,
        place: Place,
        command: Sequence[str],
        client: Client,
        *,
        environment: Mapping[str, str] | None = None,
        has_terminal: bool = False,
    ) -> Self:
        """Start the command; EntryError if it can't be, or does not get as far as its first line."""
        try:
            with translated("enter the workspace"):
                async with asyncio.timeout(_SECONDS_TO_START):
                    exec_ = await place.start(command, environment or {}, has_terminal=has_terminal)
                    link = cls(place, exec_, client, has_terminal=has_terminal)
                    await link._begin()
        except EntryError:
            raise
        except MLHubError as error:
            raise EntryError(str(error)) from error
        return link

    def write(self, data: bytes) -> None:
        """Pass on input; dropped once it reads no more."""
        if self._has_ended:
            return
        self._input.put_nowait(data)
        self.waiting += len(data)
        if self.waiting > _MOST_WAITING and not self._is_held:
            self._is_held = True
            self._client.pause_reading()

    def write_eof(self) -> None:
        """End the input; a terminal has no end: a client with one sends ^D."""
        if not self._has_terminal:
            self._input.put_nowait(None)

    def pause_reading(self) -> None:
        """Hand over no more output; the engine and then the program are held up in their turn."""
        self._may_hand_over.clear()

    def resume_reading(self) -> None:
        """Hand it over again."""
        self._may_hand_over.set()

    @property
    def _has_ended(self) -> bool:
        return self._work.done()

    async def ended(self) -> None:
        """Return once its streams have."""
        await asyncio.wait([self._work])

    def let_go(self) -> None:
        """Care no more for its streams; what runs finds out when it writes."""
        self._work.cancel()

    async def _status(self) -> int | None:
        """None while it runs."""
        with translated("tell how a program ended"):
            found = await self._exec.inspect()
        return None if found["Running"] or found["ExitCode"] is None else int(found["ExitCode"])

    async def _begin(self) -> None:
        try:
            await self._read_preface()
        except BaseException:
            await close(self._stream)
            raise
        self._work = asyncio.ensure_future(self._run())

    async def _read_preface(self) -> None:
        said = errors = b""
        while len(said + errors) < _LONGEST_PREFACE and (message := await self._stream.read_out()) is not None:
            if message.stream == ERROR_STREAM:
                errors += message.data
                continue
            said += message.data
            line, found, rest = said.partition(b"\n")
            if found and line.startswith(MARK):
                self.group = int(line[len(MARK) :])
                self._preface = [Message(ERROR_STREAM, errors), Message(message.stream, rest)]
                return
        text = (said + errors).decode(errors="replace").strip()
        raise EntryError(text or "nothing can be run in this workspace")

    async def _run(self) -> None:
        writing = asyncio.ensure_future(self._pass_input())
        try:
            await self._may_hand_over.wait()
            for message in self._preface:
                self._hand_over(message)
            while (next_ := await self._stream.read_out()) is not None:
                await self._may_hand_over.wait()
                self._hand_over(next_)
        except _LOST:
            pass  # with the engine: its streams end without having been ended
        finally:
            writing.cancel()
            await close(self._stream)
            # Nobody reads input any more: take what still comes, or the client's end would never be heard.
            self._client.resume_reading()

    def _hand_over(self, message: Message) -> None:
        is_error = message.stream == ERROR_STREAM
        if message.data and (is_error or self._is_wanted()):
            self._client.write(message.data, is_error=is_error)

    def _is_wanted(self) -> bool:
        """Whether output is."""
        return True

    async def _pass_input(self) -> None:
        with contextlib.suppress(*_LOST):
            while (data := await self._input.get()) is not None and _connection(self._stream) is not None:
                await self._stream.write_in(data)
                self.waiting -= len(data)
                if self._is_held and self.waiting <= _MOST_WAITING // 2:
                    self._is_held = False
                    self._client.resume_reading()
            end_input(self._stream)


def end_input(stream: Stream) -> None:
    """Tell the engine that no more input comes, while output still does: aiodocker has no way to."""
    connection = _connection(stream)
    transport = connection.transport if connection is not None else None
    if transport is not None and transport.can_write_eof():
        transport.write_eof()


async def close(stream: Stream) -> None:
    """Close a stream, also one whose connection is gone, which aiodocker's own way does not expect."""
    if _connection(stream) is None:
        stream._closed = True
    await stream.close()


def _connection(stream: Stream) -> Connection | None:
    return stream._resp.connection if stream._resp is not None else None
