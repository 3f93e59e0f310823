"""A program that somebody runs in a workspace of this machine, and the pipes or the terminal it talks through."""

import asyncio
import contextlib
import fcntl
import os
import signal
import termios
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mlhub_spawner_worker.backends.process.terminal import Pair, set_size
from mlhub_spawner_worker.entry import Client, Size

_DEFAULT_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
"""A worker started in the background ignores some of them, and what is ignored is inherited."""
_PIPE_BYTES = 256 * 1024
"""As much as asyncio reads at once, so that the program and we take turns less often."""
_LAST_WORDS = 1.0
"""Seconds that a terminal may stay open after its program has ended; programs that left it may hold it for ever."""


@dataclass(frozen=True)
class Plan:
    """What to start, and how."""

    argv: Sequence[str]
    cwd: Path
    environment: Mapping[str, str]
    enter_cgroup: Callable[[int], None] | None
    """Called with its own pid in the child before it becomes the program."""
    terminal: Pair | None
    """Its program's end is closed once the program is started, or not."""


class Entered(asyncio.SubprocessProtocol):
    """One running program, leader of a session of its own."""

    def __init__(self, *, has_terminal: bool) -> None:
        self._has_terminal = has_terminal
        self._exited = asyncio.Event()
        self._process: asyncio.SubprocessTransport
        self._input: asyncio.WriteTransport
        self._outputs: list[_Output] = []

    @classmethod
    async def start(cls, plan: Plan, client: Client) -> "Entered":
        """Run a program; OSError or SubprocessError if it can't be started."""
        theirs, ours = _terminal_streams(plan.terminal) if plan.terminal else _pipes()
        loop = asyncio.get_running_loop()
        try:
            process, child = await loop.subprocess_exec(
                lambda: cls(has_terminal=plan.terminal is not None),
                *plan.argv,
                stdin=theirs[0],
                stdout=theirs[1],
                stderr=theirs[2],
                cwd=plan.cwd,
                env=dict(plan.environment),
                start_new_session=True,
                preexec_fn=_prepare(plan),
            )
        except BaseException:
            for stream in ours:
                stream.close()
            raise
        finally:
            for fd in set(theirs):
                os.close(fd)
        child._process = process
        await child._connect(ours, client)
        return child

    def process_exited(self) -> None:
        """Wake who waits."""
        self._exited.set()
        self._process.close()

    def write(self, data: bytes) -> None:
        """Pass on input."""
        if not self._input.is_closing():
            self._input.write(data)

    def write_eof(self) -> None:
        """End the input of pipes; a terminal has no end: a client with one sends ^D."""
        if not self._has_terminal:
            self._input.close()

    def pause_reading(self) -> None:
        """Hand over no more output."""
        for output in self._outputs:
            output.pause()

    def resume_reading(self) -> None:
        """Hand it over again."""
        for output in self._outputs:
            output.resume()

    def close_output(self) -> None:
        """Close the pipe that it writes to."""
        for output in self._outputs:
            if not output.is_error:
                output.close()

    def resize(self, size: Size) -> None:
        """Tell its terminal the new size."""
        if self._has_terminal:
            with contextlib.suppress(OSError, ValueError):
                set_size(self._outputs[0].fileno(), size)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program and what it started, if it still runs."""
        if self._process.get_returncode() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.get_pid(), number)

    def close(self) -> None:
        """Hang up: what the program left behind on purpose stays, all else of it ends."""
        self.signal(signal.SIGHUP)
        self._input.close()
        for output in self._outputs:
            output.close()

    async def wait(self) -> int:
        """How it ended."""
        await self._exited.wait()
        endings = [asyncio.ensure_future(output.ended.wait()) for output in self._outputs]
        _, unended = await asyncio.wait(endings, timeout=_LAST_WORDS if self._has_terminal else None)
        for ending in unended:
            ending.cancel()
        return self._process.get_returncode() or 0

    async def _connect(self, streams: Sequence[IO[bytes]], client: Client) -> None:
        loop = asyncio.get_running_loop()
        stdin, *outputs = streams
        for file, is_error in zip(outputs, (False, True), strict=False):
            _, output = await loop.connect_read_pipe(_Output.factory(file, client, is_error=is_error), file)
            self._outputs.append(output)
        self._input, _ = await loop.connect_write_pipe(lambda: _Input(client), stdin)


class _Output(asyncio.Protocol):
    """Carries one of the program's outputs to the client."""

    def __init__(self, file: IO[bytes], client: Client, *, is_error: bool) -> None:
        self.is_error = is_error
        self.fileno = file.fileno
        self.ended = asyncio.Event()
        self._client = client
        self._transport: asyncio.ReadTransport

    @classmethod
    def factory(cls, file: IO[bytes], client: Client, *, is_error: bool) -> "Callable[[], _Output]":
        return lambda: cls(file, client, is_error=is_error)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.ReadTransport)  # noqa: S101  (says what asyncio promises)
        self._transport = transport
        # Not at once: Debian 12's asyncio begins to read after this, whatever it was told here.
        asyncio.get_running_loop().call_soon(transport.pause_reading)

    def data_received(self, data: bytes) -> None:
        self._client.write(data, is_error=self.is_error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()

    def pause(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        self._transport.close()


class _Input(asyncio.BaseProtocol):
    """Slows the client down to the program's pace."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def pause_writing(self) -> None:
        self._client.pause_reading()

    def resume_writing(self) -> None:
        self._client.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        # The program reads no more: take what still comes, or the client's end would never be heard.
        self._client.resume_reading()


def _pipes() -> tuple[tuple[int, int, int], tuple[IO[bytes], ...]]:
    # Not asyncio's own: its stdin is a socket, for which bash takes itself for a remote shell and reads other files.
    (their_in, our_in), (our_out, their_out), (our_err, their_err) = os.pipe(), os.pipe(), os.pipe()
    for pipe in (our_in, our_out):
        # Refused beyond what the system grants a user in all.
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    ours = (os.fdopen(our_in, "wb", 0), os.fdopen(our_out, "rb", 0), os.fdopen(our_err, "rb", 0))
    return (their_in, their_out, their_err), ours


def _terminal_streams(terminal: Pair) -> tuple[tuple[int, int, int], tuple[IO[bytes], ...]]:
    ours = (os.fdopen(os.dup(terminal.ours), "wb", 0), os.fdopen(terminal.ours, "rb", 0))
    return (terminal.theirs,) * 3, ours


def _prepare(plan: Plan) -> Callable[[], None]:
    def prepare() -> None:
        for number in _DEFAULT_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        if plan.terminal is not None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        if plan.enter_cgroup is not None:
            plan.enter_cgroup(os.getpid())

    return prepare
