"""A program that somebody runs in a pod, on pipes or on a terminal of its own."""

import asyncio
import fcntl
import os
import pty
import struct
import termios
from contextlib import suppress
from pathlib import Path
from typing import Protocol

_CHUNK = 32 * 1024
_END_OF_INPUT = b"\x04"

STDIN, STDOUT, STDERR = 0, 1, 2


class Attached(Protocol):
    """What is connected to a running program."""

    process: asyncio.subprocess.Process
    channels: tuple[int, ...]
    """Those it writes on."""

    async def read(self, channel: int) -> bytes:
        """What it has written; empty: it will write no more."""

    async def write(self, data: bytes) -> None:
        """Hand it input."""

    async def end_input(self) -> None:
        """There will be no more."""

    def resize(self, rows: int, columns: int) -> None:
        """Its window has another size."""

    def close(self) -> None:
        """Nobody is connected any more."""


class Pipes:
    """Standard input, output and errors apart."""

    def __init__(self, process: asyncio.subprocess.Process, channels: tuple[int, ...]) -> None:
        self.process, self.channels = process, channels

    @classmethod
    async def start(cls, argv: list[str], env: dict[str, str], cwd: Path, channels: tuple[int, ...]) -> "Pipes":
        """`channels`: those that somebody is connected to."""
        nothing, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
        ends = [pipe if channel in channels else nothing for channel in (STDIN, STDOUT, STDERR)]
        process = await asyncio.create_subprocess_exec(
            *argv, env=env, cwd=cwd, stdin=ends[0], stdout=ends[1], stderr=ends[2]
        )
        return cls(process, tuple(channel for channel in channels if channel != STDIN))

    async def read(self, channel: int) -> bytes:
        stream = self.process.stdout if channel == STDOUT else self.process.stderr
        return await stream.read(_CHUNK) if stream else b""

    async def write(self, data: bytes) -> None:
        if self.process.stdin is not None:
            with suppress(ConnectionError):
                self.process.stdin.write(data)
                await self.process.stdin.drain()

    async def end_input(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()

    def resize(self, rows: int, columns: int) -> None:
        pass

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()


class Terminal:
    """A pseudo-terminal, whose size is 0 by 0 until somebody says it."""

    def __init__(self, process: asyncio.subprocess.Process, master: int) -> None:
        self.process, self._master = process, master
        self.channels: tuple[int, ...] = (STDOUT,)
        os.set_blocking(master, False)

    @classmethod
    async def start(cls, argv: list[str], env: dict[str, str], cwd: Path) -> "Terminal":
        """`argv` takes the terminal for its own."""
        master, slave = pty.openpty()
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, env=env | {"TERM": "xterm"}, cwd=cwd, stdin=slave, stdout=slave, stderr=slave
            )
        except BaseException:
            os.close(master)
            raise
        finally:
            os.close(slave)
        return cls(process, master)

    async def read(self, channel: int) -> bytes:
        while self._master >= 0:
            try:
                return os.read(self._master, _CHUNK)
            except BlockingIOError:
                await self._ready(reading=True)
            except OSError:
                # So a terminal tells that nobody has it open any more.
                break
        return b""

    async def write(self, data: bytes) -> None:
        while data and self._master >= 0:
            try:
                data = data[os.write(self._master, data) :]
            except BlockingIOError:
                await self._ready(reading=False)
            except OSError:
                return

    async def end_input(self) -> None:
        await self.write(_END_OF_INPUT)

    def resize(self, rows: int, columns: int) -> None:
        if self._master >= 0:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    async def _ready(self, *, reading: bool) -> None:
        loop, master = asyncio.get_running_loop(), self._master
        ready = loop.create_future()
        add, remove = (loop.add_reader, loop.remove_reader) if reading else (loop.add_writer, loop.remove_writer)
        add(master, _set, ready)
        try:
            await ready
        finally:
            remove(master)


def _set(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
