"""A session of a client and the session inside the workspace, joined channel to channel."""

import asyncio
import contextlib
from collections.abc import Mapping

import asyncssh
import structlog

from mlhub_shared.errors import MLHubError
from mlhub_ssh_gateway.lean import widen
from mlhub_ssh_gateway.metrics import ENTERING
from mlhub_ssh_gateway.sessions import Session
from mlhub_ssh_gateway.upstream import Way

log = structlog.get_logger(__name__)

Size = tuple[int, int, int, int]

_NO_WAY = 255
"""What ssh itself ends with when there is no connection."""
_INTERRUPTED = 130
_CTRL_C = b"\x03"
_PACKET = 128 * 1024
"""Bytes of output that a worker may send at once; OpenSSH itself takes 32 KiB."""
_MOST_EARLY = 64 * 1024
"""Bytes typed ahead that are kept for a terminal's program while the workspace starts."""


class EowChannel(asyncssh.SSHServerChannel[bytes]):
    """A channel that hears the client say that nobody reads the output any more.

    OpenSSH's extension `eow@openssh.com`; without it `ssh host yes | head` runs for ever.
    """

    def _process_eow_at_openssh_dot_com_request(self, packet: asyncssh.packet.SSHPacket) -> bool:
        packet.check_end()
        if isinstance(self._session, Down):
            self._session.output_unwanted()
        return True


class Down(asyncssh.SSHServerSession[bytes]):
    """The client's side. Accepts at once, so that there is a place to say how the workspace's start goes."""

    def __init__(self, way: Way, session: Session, *, is_wide: bool) -> None:
        """A wide one takes much at once, as soon as there is a program to take it."""
        self._way, self._session, self._is_wide = way, session, is_wide
        self._channel: asyncssh.SSHServerChannel[bytes]
        self._command: str | None = None
        self._subsystem: str | None = None
        self._has_terminal = False
        self._size: Size | None = None
        self._early: list[tuple[bytes, int | None]] = []
        self._ended = False
        self._unwanted = False
        self._up: Up | None = None
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        """Keep the channel to answer on."""
        self._channel = chan

    def pty_requested(self, term_type: str, term_size: Size, term_modes: Mapping[int, int]) -> bool:
        """Accept; the workspace's side is asked for one later."""
        self._has_terminal = True
        return True

    def shell_requested(self) -> bool:
        """Accept."""
        return True

    def exec_requested(self, command: str) -> bool:
        """Accept."""
        self._command = command
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        """Accept."""
        self._subsystem = subsystem
        return True

    def session_started(self) -> None:
        """Open the workspace's side."""
        if not self._has_terminal:
            # asyncssh resumes reading right after this call. A terminal stays open for ^C.
            asyncio.get_running_loop().call_soon(self._pause)
        self._opening = asyncio.ensure_future(self._open())

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """From the client to the workspace."""
        self._session.count_in(len(data))
        if self._up is not None:
            self._up.write(data, datatype)
            return
        self._early.append((data, datatype))
        if self._has_terminal and _CTRL_C in data:
            self._give_up(_INTERRUPTED)
        elif sum(len(piece) for piece, _ in self._early) > _MOST_EARLY:
            self._pause()

    def eof_received(self) -> bool:
        """The client sends no more, but still listens."""
        self._ended = True
        if self._up is not None:
            self._up.channel.write_eof()
        return True

    def pause_writing(self) -> None:
        """The client is slow."""
        if self._up is not None:
            self._up.channel.pause_reading()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._up is not None:
            self._up.channel.resume_reading()

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        """Resize the workspace's terminal."""
        self._size = (width, height, pixwidth, pixheight)
        if self._up is not None:
            self._up.channel.change_terminal_size(*self._size)

    def signal_received(self, signal: str) -> None:
        """Deliver a signal to the workspace's program; before there is one, give up."""
        if self._up is not None:
            with contextlib.suppress(ValueError):
                self._up.channel.send_signal(signal)
        else:
            self._give_up(_INTERRUPTED)

    def break_received(self, msec: int) -> bool:
        """Deliver a break."""
        if self._up is not None:
            self._up.channel.send_break(msec)
        return True

    def output_unwanted(self) -> None:
        """Tell the workspace that nobody reads its output."""
        self._unwanted = True
        if self._up is not None:
            # There is no public way to send a request that asyncssh does not know.
            self._up.channel._send_request(b"eow@openssh.com")

    def connection_lost(self, exc: Exception | None) -> None:
        """End the workspace's side with the client's."""
        if self._opening is not None:
            self._opening.cancel()
        if self._up is not None:
            self._up.channel.close()

    def tell(self, sentence: str) -> None:
        """Say something on the client's standard error."""
        text = "".join(character for character in sentence if character.isprintable())
        ending = "\r\n" if self._has_terminal else "\n"
        with contextlib.suppress(OSError):
            self._channel.write_stderr((text + ending).encode())

    def dismiss(self, sentence: str) -> None:
        """End the session, and say why."""
        self.tell(sentence)
        self._give_up(_NO_WAY)

    def write(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """From the workspace to the client."""
        self._session.count_out(len(data))
        with contextlib.suppress(OSError):
            self._channel.write(data, datatype)

    @property
    def channel(self) -> asyncssh.SSHServerChannel[bytes]:
        """The client's channel."""
        return self._channel

    async def _open(self) -> None:
        try:
            await self._join()
        except asyncssh.ChannelOpenError as error:
            self.tell(error.reason)
        except MLHubError as error:
            self.tell(str(error))
        except Exception:  # whatever it was: a client must not be left hanging
            log.exception("session.not_opened", workspace=self._way.workspace.name)
            self.tell(f"workspace {self._way.workspace.address} can't be entered now")
        else:
            return
        self._channel.exit(_NO_WAY)

    async def _join(self) -> None:
        started = asyncio.get_running_loop().time()
        waited: list[str] = []

        def tell(sentence: str) -> None:
            waited.append(sentence)
            self.tell(sentence)

        upstream = await self._way.open(tell, self._channel.get_agent_path())
        up = Up(self)
        try:
            await self._begin(upstream, up)
        except BaseException:
            # The program may run already; nobody else knows of its channel.
            up.close()
            raise
        self._connect(up)
        if not waited:
            ENTERING.observe(asyncio.get_running_loop().time() - started)

    async def _begin(self, upstream: asyncssh.SSHClientConnection, up: "Up") -> None:
        await upstream.create_session(
            lambda: up,
            command=self._command,
            subsystem=self._subsystem,
            env=list(self._channel.get_environment_bytes().items()),
            request_pty="force" if self._has_terminal else False,
            term_type=self._channel.get_terminal_type(),
            term_size=self._channel.get_terminal_size(),
            term_modes=self._channel.get_terminal_modes(),
            encoding=None,
            max_pktsize=_PACKET,
        )

    def _connect(self, up: "Up") -> None:
        self._up = up
        if self._size is not None:
            up.channel.change_terminal_size(*self._size)
        for data, datatype in self._early:
            up.write(data, datatype)
        self._early.clear()
        if self._is_wide:
            widen(self._channel)
        if self._ended:
            up.channel.write_eof()
        if self._unwanted:
            self.output_unwanted()
        if not up.is_paused:
            self._channel.resume_reading()

    def _pause(self) -> None:
        if self._up is None:
            self._channel.pause_reading()

    def _give_up(self, status: int) -> None:
        if self._opening is not None:
            self._opening.cancel()
        self._channel.exit(status)


class Up(asyncssh.SSHClientSession[bytes]):
    """The workspace's side."""

    def __init__(self, down: Down) -> None:
        self._down = down
        self._status: int | None = None
        self._signal: tuple[str, bool, str, str] | None = None
        self.is_paused = False
        self.channel: asyncssh.SSHClientChannel[bytes]

    def close(self) -> None:
        """End the program, if its channel is open."""
        if hasattr(self, "channel"):
            self.channel.close()

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """Keep the channel to write to."""
        self.channel = chan

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """From the workspace to the client."""
        self._down.write(data, datatype)

    def eof_received(self) -> bool:
        """The workspace's program says no more, but still listens."""
        self._down.channel.write_eof()
        return True

    def pause_writing(self) -> None:
        """The program is slow."""
        self.is_paused = True
        self._down.channel.pause_reading()

    def resume_writing(self) -> None:
        """The program has caught up."""
        self.is_paused = False
        self._down.channel.resume_reading()

    def exit_status_received(self, status: int) -> None:
        """Keep it until everything before it is passed on."""
        self._status = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        """Keep it until everything before it is passed on."""
        self._signal = (signal, core_dumped, msg, lang)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on how it ended."""
        if self._signal is not None:
            self._down.channel.exit_with_signal(*self._signal)
        elif self._status is not None:
            self._down.channel.exit(self._status)
        else:
            self._down.tell("the connection to the workspace is lost")
            self._down.channel.exit(_NO_WAY)

    def write(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """From the client to the workspace."""
        with contextlib.suppress(OSError):
            self.channel.write(data, datatype)
