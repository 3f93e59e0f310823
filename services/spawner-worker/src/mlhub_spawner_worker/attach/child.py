"""A program of a workspace and the pipes or the terminal it talks through."""

import asyncio
import contextlib
import fcntl
import os
import signal
import termios
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from mlhub_spawner_worker.attach.entry import Entry
from mlhub_spawner_worker.attach.terminal import Terminal, set_size

_DEFAULT_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
"""A worker started in the background ignores some of them, and what is ignored is inherited."""


@dataclass(frozen=True)
class Streams:
    """Our ends of what a child reads and writes, not yet handed to the loop."""

    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes] | None
    """None: the terminal carries it along with stdout."""


class Child(asyncio.SubprocessProtocol):
    """One running program, leader of a session of its own."""

    def __init__(self) -> None:
        self.exited = asyncio.Event()
        self._transport: asyncio.SubprocessTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the process to wait for and to signal."""
        assert isinstance(transport, asyncio.SubprocessTransport)  # noqa: S101  (says what asyncio promises)
        self._transport = transport

    def process_exited(self) -> None:
        """Wake who waits."""
        self.exited.set()
        self._transport.close()

    @property
    def returncode(self) -> int | None:
        """None while it runs, negative where a signal ended it."""
        return self._transport.get_returncode()

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the program and what it started, if it still runs."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._transport.get_pid(), number)


async def start(
    argv: Sequence[str], entry: Entry, environment: Mapping[str, str], *, terminal: Terminal | None
) -> tuple[Child, Streams]:
    """Run a program inside a workspace; OSError or SubprocessError if it can't be started.

    The terminal's end of the program is closed here, ours is part of the streams.
    """
    theirs, ours = _terminal_streams(terminal) if terminal else _pipes()
    try:
        _, child = await asyncio.get_running_loop().subprocess_exec(
            Child,
            *argv,
            stdin=theirs[0],
            stdout=theirs[1],
            stderr=theirs[2],
            cwd=entry.cwd,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=_prepare(entry, has_terminal=terminal is not None),
        )
    except BaseException:
        for stream in (ours.stdin, ours.stdout, ours.stderr):
            if stream:
                stream.close()
        raise
    finally:
        for fd in set(theirs):
            os.close(fd)
    return child, ours


def resize(streams: Streams, size: tuple[int, int, int, int]) -> None:
    """Tell a child's terminal its new size."""
    with contextlib.suppress(OSError, ValueError):
        set_size(streams.stdout.fileno(), size)


def _pipes() -> tuple[tuple[int, int, int], Streams]:
    # Not asyncio's own: its stdin is a socket, for which bash takes itself for a remote shell and reads other files.
    (their_in, our_in), (our_out, their_out), (our_err, their_err) = os.pipe(), os.pipe(), os.pipe()
    streams = Streams(os.fdopen(our_in, "wb", 0), os.fdopen(our_out, "rb", 0), os.fdopen(our_err, "rb", 0))
    return (their_in, their_out, their_err), streams


def _terminal_streams(terminal: Terminal) -> tuple[tuple[int, int, int], Streams]:
    streams = Streams(os.fdopen(os.dup(terminal.ours), "wb", 0), os.fdopen(terminal.ours, "rb", 0), None)
    return (terminal.theirs,) * 3, streams


def _prepare(entry: Entry, *, has_terminal: bool) -> Callable[[], None]:
    def prepare() -> None:
        for number in _DEFAULT_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        if has_terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        if entry.enter_cgroup is not None:
            entry.enter_cgroup(os.getpid())

    return prepare
