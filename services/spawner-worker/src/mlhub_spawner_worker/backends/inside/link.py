"""What an engine carries out of a workspace and into it, as somebody's link."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Self

from mlhub_shared.errors import MLHubError
from mlhub_spawner_worker.backends.inside.place import Exec, Lost, Place, Said, Streams
from mlhub_spawner_worker.backends.inside.script import MARK
from mlhub_spawner_worker.entry import Client, EntryError

_SECONDS_TO_START = 30
_MOST_WAITING = 256 * 1024
"""Bytes of input that may wait for a program before its client is asked to pause."""
_LONGEST_PREFACE = 8 * 1024
"""Of both its outputs: what is entered need not be what was meant to be."""


class StreamLink:
    """Streams that are open, as somebody's link."""

    def __init__(self, streams: Streams, client: Client) -> None:
        self._streams, self._client = streams, client
        self._preface: list[Said] = []
        self._may_hand_over = asyncio.Event()
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.waiting = 0
        """Bytes of input."""
        self._is_held = False
        self._work: asyncio.Task[None]

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
        """End the input."""
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

    def _begin(self) -> None:
        self._work = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        writing = asyncio.ensure_future(self._pass_input())
        try:
            await self._may_hand_over.wait()
            for said in self._preface:
                self._hand_over(said)
            while (next_ := await self._streams.read()) is not None:
                await self._may_hand_over.wait()
                self._hand_over(next_)
        except Lost:
            pass  # its streams end without having been ended
        finally:
            writing.cancel()
            await self._streams.close()
            # Nobody reads input any more: take what still comes, or the client's end would never be heard.
            self._client.resume_reading()

    def _hand_over(self, said: Said) -> None:
        if said.data and (said.is_error or self._is_wanted()):
            self._client.write(said.data, is_error=said.is_error)

    def _is_wanted(self) -> bool:
        """Whether output is."""
        return True

    async def _pass_input(self) -> None:
        with contextlib.suppress(Lost):
            while (data := await self._input.get()) is not None:
                await self._streams.write(data)
                self.waiting -= len(data)
                if self._is_held and self.waiting <= _MOST_WAITING // 2:
                    self._is_held = False
                    self._client.resume_reading()
            await self._streams.end_input()


class ExecLink(StreamLink):
    """A program that runs in a workspace, as somebody's link to it."""

    def __init__(self, place: Place, exec_: Exec, client: Client, *, has_terminal: bool) -> None:
        super().__init__(exec_, client)
        self._place, self._exec, self._has_terminal = place, exec_, has_terminal
        self.group = 0
        """Of processes, in the workspace's own numbering."""

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
            async with asyncio.timeout(_SECONDS_TO_START):
                exec_ = await place.start(command, environment or {}, has_terminal=has_terminal)
                link = cls(place, exec_, client, has_terminal=has_terminal)
                await link._enter()
        except EntryError:
            raise
        except MLHubError as error:
            raise EntryError(str(error)) from error
        except Lost as error:
            raise EntryError("the connection to the workspace is lost") from error
        except TimeoutError as error:
            raise EntryError("the workspace can't be entered in time") from error
        return link

    def write_eof(self) -> None:
        """End the input; a terminal has no end: a client with one sends ^D."""
        if not self._has_terminal:
            super().write_eof()

    async def _enter(self) -> None:
        try:
            await self._read_preface()
        except BaseException:
            await self._exec.close()
            raise
        self._begin()

    async def _read_preface(self) -> None:
        said = errors = b""
        while len(said + errors) < _LONGEST_PREFACE and (next_ := await self._exec.read()) is not None:
            if next_.is_error:
                errors += next_.data
                continue
            said += next_.data
            line, found, rest = said.partition(b"\n")
            if found and line.startswith(MARK):
                self.group = int(line[len(MARK) :])
                self._preface = [Said(errors, is_error=True), Said(rest)]
                return
        text = (said + errors).decode(errors="replace").strip()
        raise EntryError(text or "nothing can be run in this workspace")
