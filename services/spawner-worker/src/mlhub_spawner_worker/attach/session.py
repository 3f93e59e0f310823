"""One SSH session: a shell, a command or a subsystem, relayed to a child of this process."""

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import Mapping
from typing import IO

import asyncssh
import structlog

from mlhub_spawner_worker.attach import program
from mlhub_spawner_worker.attach.child import Child, Streams, resize, start
from mlhub_spawner_worker.attach.entry import Entry
from mlhub_spawner_worker.attach.terminal import Size, Terminal, open_terminal

log = structlog.get_logger(__name__)

_CANNOT_START = 126
"""Exit status of a shell whose command can't be run."""
_LAST_WORDS = 1.0
"""Seconds that a terminal may stay open after its program has ended; programs that left it may hold it for ever."""


class EowChannel(asyncssh.SSHServerChannel[bytes]):
    """A channel that hears its peer say that nobody reads the output any more.

    OpenSSH's extension `eow@openssh.com`; without it `ssh host yes | head` runs for ever.
    """

    def _process_eow_at_openssh_dot_com_request(self, packet: asyncssh.packet.SSHPacket) -> bool:
        packet.check_end()
        if isinstance(self._session, LocalSession):
            self._session.output_unwanted()
        return True


class LocalSession(asyncssh.SSHServerSession[bytes]):
    """Runs one program of a workspace and carries its streams, signals and exit status."""

    def __init__(
        self, name: str, entry: Entry, *, connection_info: Mapping[str, str], tasks: set[asyncio.Task[None]]
    ) -> None:
        """The session's work is kept in `tasks` until its program has ended."""
        self._name, self._entry, self._connection_info, self._tasks = name, entry, connection_info, tasks
        self._channel: asyncssh.SSHServerChannel[bytes]
        self._argv: list[str] = []
        self._terminal_type: str | None = None
        self._child: Child | None = None
        self._streams: Streams | None = None
        self._input: asyncio.WriteTransport | None = None
        self._outputs: list[_Output] = []
        self._early: list[bytes] = []
        self._input_ended = False
        self._output_unwanted = False
        self._gone = False

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        """Keep the channel to answer on."""
        self._channel = chan

    def pty_requested(self, term_type: str, term_size: Size, term_modes: Mapping[int, int]) -> bool:
        """Accept: the terminal is made when the program is known."""
        self._terminal_type = term_type
        return True

    def shell_requested(self) -> bool:
        """Run the login shell."""
        self._argv = program.login_shell(self._entry.environment)
        return True

    def exec_requested(self, command: str) -> bool:
        """Run a command line."""
        self._argv = program.command(self._entry.environment, command)
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        """Run a subsystem; only SFTP exists."""
        self._argv = program.sftp()
        return subsystem == "sftp"

    def session_started(self) -> None:
        """Start the program."""
        # asyncssh resumes reading right after this call; what it delivers until then is kept in `_early`.
        asyncio.get_running_loop().call_soon(self._channel.pause_reading)
        task = asyncio.ensure_future(self._run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """Input for the program."""
        if self._input is None:
            self._early.append(data)
        elif not self._input.is_closing():
            self._input.write(data)

    def eof_received(self) -> bool:
        """End the program's input; its output goes on."""
        self._input_ended = True
        # A terminal has no end: a client with one sends ^D.
        if self._input is not None and self._terminal_type is None:
            self._input.close()
        return True

    def pause_writing(self) -> None:
        """Stop reading the program's output: the client is slow."""
        for output in self._outputs:
            output.pause()

    def resume_writing(self) -> None:
        """Read on."""
        for output in self._outputs:
            output.resume()

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        """Resize the program's terminal."""
        if self._streams is not None and self._terminal_type is not None:
            resize(self._streams, (width, height, pixwidth, pixheight))

    def signal_received(self, signal_name: str) -> None:
        """Deliver a signal, named as in RFC 4254: without SIG."""
        number = getattr(signal, f"SIG{signal_name}", None)
        if isinstance(number, signal.Signals) and self._child is not None:
            self._child.signal_group(number)

    def break_received(self, msec: int) -> bool:
        """A break is an interrupt to a terminal's program."""
        self.signal_received("INT")
        return True

    def output_unwanted(self) -> None:
        """Let the program find out that nobody reads its output: its next write ends it."""
        self._output_unwanted = True
        for output in self._outputs:
            if output.datatype is None:
                output.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hang up: what the program left behind on purpose stays, all else of it ends."""
        self._gone = True
        if self._child is not None:
            self._child.signal_group(signal.SIGHUP)
        if self._input is not None:
            self._input.close()
        for output in self._outputs:
            output.close()

    async def _run(self) -> None:
        try:
            await self._start()
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("attach.not_started", workspace=self._name, error=str(error))
            with contextlib.suppress(OSError):
                self._channel.write_stderr(f"{self._argv[0]} can't be started: {error}\r\n".encode())
            self._channel.exit(_CANNOT_START)
            return
        await self._wait()

    async def _start(self) -> None:
        terminal = self._open_terminal()
        environment = program.environment_for(
            self._name, self._entry, self._channel.get_environment(), self._extra_environment(terminal)
        )
        self._child, streams = await start(self._argv, self._entry, environment, terminal=terminal)
        self._streams = streams
        for file, datatype in ((streams.stdout, None), (streams.stderr, asyncssh.EXTENDED_DATA_STDERR)):
            if file is not None:
                self._outputs.append(await _Output.open(file, self._channel, datatype))
        await self._open_input(streams.stdin)
        if self._gone:
            self.connection_lost(None)
        elif self._output_unwanted:
            self.output_unwanted()

    async def _open_input(self, file: IO[bytes]) -> None:
        loop = asyncio.get_running_loop()
        self._input, pace = await loop.connect_write_pipe(lambda: _Input(self._channel), file)
        for data in self._early:
            self._input.write(data)
        self._early.clear()
        if self._input_ended:
            self.eof_received()
        if not pace.is_paused:
            self._channel.resume_reading()

    def _open_terminal(self) -> Terminal | None:
        if self._terminal_type is None:
            return None
        return open_terminal(self._channel.get_terminal_size(), self._channel.get_terminal_modes())

    def _extra_environment(self, terminal: Terminal | None) -> dict[str, str]:
        extra = dict(self._connection_info)
        if terminal is not None and self._terminal_type:
            extra |= {"TERM": self._terminal_type, "SSH_TTY": terminal.name}
        if (agent := self._channel.get_agent_path()) is not None:
            extra["SSH_AUTH_SOCK"] = agent
        return extra

    async def _wait(self) -> None:
        assert self._child is not None  # noqa: S101  (for the type: `_start` has made it)
        await self._child.exited.wait()
        patience = None if self._terminal_type is None else _LAST_WORDS
        endings = [asyncio.ensure_future(output.ended.wait()) for output in self._outputs]
        _, unended = await asyncio.wait(endings, timeout=patience)
        for ending in unended:
            ending.cancel()
        self._report(self._child.returncode or 0)
        self.connection_lost(None)

    def _report(self, returncode: int) -> None:
        if returncode >= 0:
            self._channel.exit(returncode)
            return
        try:
            name = signal.Signals(-returncode).name.removeprefix("SIG")
        except ValueError:
            self._channel.exit(128 - returncode)
        else:
            self._channel.exit_with_signal(name)


class _Output(asyncio.Protocol):
    """Carries one of the program's outputs to the client."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], datatype: int | None) -> None:
        self.datatype = datatype
        self.ended = asyncio.Event()
        self._channel = channel
        self._transport: asyncio.ReadTransport

    @classmethod
    async def open(cls, file: IO[bytes], channel: asyncssh.SSHServerChannel[bytes], datatype: int | None) -> "_Output":
        """Start reading."""
        _, output = await asyncio.get_running_loop().connect_read_pipe(lambda: cls(channel, datatype), file)
        return output

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.ReadTransport)  # noqa: S101  (says what asyncio promises)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._channel.write(data, self.datatype)

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

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = channel
        self.is_paused = False

    def pause_writing(self) -> None:
        self.is_paused = True
        self._channel.pause_reading()

    def resume_writing(self) -> None:
        self.is_paused = False
        # Not now: it delivers at once what waits, and asyncio's pipe, which calls from amid a write, would lose it.
        asyncio.get_running_loop().call_soon(self._channel.resume_reading)

    def connection_lost(self, exc: Exception | None) -> None:
        # The program reads no more: take what still comes, or the client's end would never be heard.
        self._channel.resume_reading()
