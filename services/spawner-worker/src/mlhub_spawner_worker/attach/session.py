"""One SSH session: a shell, a command or a subsystem, carried to a program inside a workspace."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import asyncssh
import structlog

from mlhub_spawner_worker.attach.pace import Pace
from mlhub_spawner_worker.entry import Child, Entry, EntryError, Order, Size, Terminal, What

log = structlog.get_logger(__name__)

Keep = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]

_CANNOT_START = 126
"""Exit status of a shell whose command can't be run."""
_FROM_CLIENT = ("LANG", "COLORTERM", "TERM")
_FROM_CLIENT_PREFIX = "LC_"


class EowChannel(asyncssh.SSHServerChannel[bytes]):
    """A channel that hears its peer say that nobody reads the output any more.

    OpenSSH's extension `eow@openssh.com`; without it `ssh host yes | head` runs for ever.
    """

    def _process_eow_at_openssh_dot_com_request(self, packet: asyncssh.packet.SSHPacket) -> bool:
        packet.check_end()
        if isinstance(self._session, Session):
            self._session.output_unwanted()
        return True


class Session(asyncssh.SSHServerSession[bytes]):
    """Runs one program of a workspace and carries its streams, signals and exit status; it is the program's client."""

    def __init__(self, name: str, entry: Entry, *, connection_info: Mapping[str, str], keep: Keep) -> None:
        """The session's work is given to `keep`; it lasts until its program has ended."""
        self._name, self._entry, self._connection_info, self._keep = name, entry, connection_info, keep
        self._channel: asyncssh.SSHServerChannel[bytes]
        self._pace: Pace
        self._what = What.SHELL
        self._line = ""
        self._terminal_type: str | None = None
        self._child: Child | None = None
        self._early: list[Callable[[Child], None]] = []

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        """Keep the channel to answer on."""
        self._channel = chan

    def pty_requested(self, term_type: str, term_size: Size, term_modes: Mapping[int, int]) -> bool:
        """Accept: the terminal is made when the program is known."""
        self._terminal_type = term_type
        return True

    def shell_requested(self) -> bool:
        """Run the login shell."""
        return True

    def exec_requested(self, command: str) -> bool:
        """Run a command line."""
        self._what, self._line = What.COMMAND, command
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        """Run a subsystem; only SFTP exists."""
        self._what = What.SFTP
        return subsystem == "sftp"

    def session_started(self) -> None:
        """Start the program."""
        self._pace = Pace(self._channel)
        self._keep(self._run())

    # From the client to the program

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """Input for the program."""
        self._do(lambda child: child.write(data))

    def eof_received(self) -> bool:
        """End the program's input; its output goes on."""
        self._do(lambda child: child.write_eof())
        return True

    def pause_writing(self) -> None:
        """Stop reading the program's output: the client is slow."""
        self._do(lambda child: child.pause_reading())

    def resume_writing(self) -> None:
        """Read on."""
        self._do(lambda child: child.resume_reading())

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        """Resize the program's terminal."""
        self._do(lambda child: child.resize((width, height, pixwidth, pixheight)))

    def signal_received(self, signal_name: str) -> None:
        """Deliver a signal, named as in RFC 4254: without SIG."""
        number = getattr(signal, f"SIG{signal_name}", None)
        if isinstance(number, signal.Signals):
            self._do(lambda child: child.signal(number))

    def break_received(self, msec: int) -> bool:
        """A break is an interrupt to a terminal's program."""
        self.signal_received("INT")
        return True

    def output_unwanted(self) -> None:
        """Let the program find out that nobody reads its output: its next write ends it."""
        self._do(lambda child: child.close_output())

    def connection_lost(self, exc: Exception | None) -> None:
        """Hang up: what the program left behind on purpose stays, all else of it ends."""
        self._do(lambda child: child.close())

    # From the program to the client

    def write(self, data: bytes, *, is_error: bool = False) -> None:
        """Pass on output."""
        with contextlib.suppress(OSError):
            self._channel.write(data, asyncssh.EXTENDED_DATA_STDERR if is_error else None)

    def pause_reading(self) -> None:
        """Hold up the client: the program is slow."""
        self._pace.hold()

    def resume_reading(self) -> None:
        """Let it send again."""
        self._pace.release()

    def _do(self, action: Callable[[Child], None]) -> None:
        """Do it to the program, as soon as there is one."""
        if self._child is None:
            self._early.append(action)
        else:
            action(self._child)

    async def _run(self) -> None:
        try:
            await self._carry(await self._entry.run(self._order(), self))
        except EntryError as error:
            log.warning("attach.not_started", workspace=self._name, error=str(error))
            self._refuse(str(error))
        except Exception:  # whatever it was: a client must not be left hanging
            log.exception("attach.failed", workspace=self._name)
            self._refuse("the workspace can't be entered now")

    def _refuse(self, reason: str) -> None:
        with contextlib.suppress(OSError):
            self._channel.write_stderr(f"{reason}\r\n".encode())
        self._channel.exit(_CANNOT_START)

    async def _carry(self, child: Child) -> None:
        self._pace.release()
        child.resume_reading()
        self._child = child
        for action in self._early:
            action(child)
        self._early.clear()
        try:
            self._report(await child.wait())
        finally:
            child.close()

    def _order(self) -> Order:
        client, channel = self._channel.get_environment(), self._channel
        allowed = {key: value for key, value in client.items() if _may_come(key)}
        agent = channel.get_agent_path()
        return Order(
            self._what,
            self._line,
            environment=allowed | dict(self._connection_info),
            terminal=None
            if self._terminal_type is None
            else Terminal(self._terminal_type, channel.get_terminal_size(), channel.get_terminal_modes()),
            agent=Path(agent) if agent is not None else None,
        )

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


def _may_come(key: str) -> bool:
    return key in _FROM_CLIENT or key.startswith(_FROM_CLIENT_PREFIX)
