"""A forwarded connection: an SSH channel carried to a port of a workspace."""

import contextlib

import asyncssh
import structlog

from mlhub_spawner_worker.attach.pace import Pace
from mlhub_spawner_worker.entry import Accept, EntryError, Link, Loopback

log = structlog.get_logger(__name__)


class Forward(asyncssh.SSHTCPSession[bytes]):
    """One connection; it is the link's caller."""

    def __init__(self) -> None:
        self._channel: asyncssh.SSHTCPChannel[bytes] | None = None
        self._pace: Pace
        self._link: Link

    @classmethod
    async def open(cls, loopback: Loopback, host: str, port: int) -> "Forward":
        """Reach the port from inside; ChannelOpenError if it can't be."""
        forward = cls()
        try:
            forward._link = await loopback.connect(port, forward, host=host)
        except EntryError as error:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, str(error)) from error
        except Exception as error:  # whatever it was: asyncssh would end the whole connection
            log.exception("attach.not_forwarded", port=port)
            reason = "the workspace can't be reached now"
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, reason) from error
        return forward

    @classmethod
    async def take(cls, accept: Accept) -> "Forward":
        """Take a connection that has come in; EntryError if it is gone."""
        forward = cls()
        forward._link = await accept(forward)
        return forward

    def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
        """Keep the channel to answer on."""
        self._channel = chan

    def session_started(self) -> None:
        """Let the data flow."""
        if self._channel is None:
            return
        self._pace = Pace(self._channel)
        self._pace.release()
        self._link.resume_reading()

    async def run(self) -> None:
        """Until the port has said all."""
        await self._link.wait()
        if self._channel is not None:
            self._channel.close()

    # From the client to the port

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """Pass on."""
        self._link.write(data)

    def eof_received(self) -> bool:
        """The client sends no more, but still listens."""
        self._link.write_eof()
        return True

    def pause_writing(self) -> None:
        """The client is slow."""
        self._link.pause_reading()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._link.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the connection to the port."""
        self._link.close()

    # From the port to the client

    def write(self, data: bytes, *, is_error: bool = False) -> None:
        """Pass on."""
        if self._channel is not None and not is_error:
            with contextlib.suppress(OSError):
                self._channel.write(data)

    def write_eof(self) -> None:
        """The port says no more, but still listens."""
        if self._channel is not None:
            with contextlib.suppress(OSError):
                self._channel.write_eof()

    def pause_reading(self) -> None:
        """Hold up the client: the port is slow."""
        self._pace.hold()

    def resume_reading(self) -> None:
        """Let it send again."""
        self._pace.release()
