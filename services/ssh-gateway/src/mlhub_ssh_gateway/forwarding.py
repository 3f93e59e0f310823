"""Forwarded ports: connections through a session's way, counted."""

import asyncio
from collections.abc import Callable
from typing import cast

import asyncssh

from mlhub_shared.errors import MLHubError
from mlhub_ssh_gateway.sessions import Session
from mlhub_ssh_gateway.upstream import Way

Count = Callable[[int], None]
Tunnel = asyncssh.SSHTCPSession[bytes]


class CountingForwarder(asyncssh.SSHForwarder):
    """One end of a forwarded connection; counts what it writes."""

    def __init__(self, count: Count, peer: asyncssh.SSHForwarder | None = None) -> None:
        super().__init__(peer)
        self._count = count

    def write(self, data: bytes) -> None:
        """Pass on what the peer received."""
        self._count(len(data))
        super().write(data)

    def eof_received(self) -> bool:
        """Pass on an end of input; with both ends reached, close, which asyncssh leaves to whoever is last."""
        half_open = super().eof_received()
        if not half_open:
            asyncio.get_running_loop().call_soon(self.close)
        return half_open


def silent(sentence: str) -> None:
    """Nobody reads what a forwarded connection would be told."""


async def connect(way: Way, session: Session, host: str, port: int) -> Tunnel:
    """Reach a port of the workspace for the client; ChannelOpenError if there is no way."""
    try:
        upstream = await way.open(silent)
        # No await may follow this one: what the workspace says first would find nobody yet who takes it.
        _, inner = await upstream.create_connection(_end(session.count_in), host, port)
    except MLHubError as error:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, str(error)) from error
    except asyncssh.ChannelOpenError:
        raise
    except (OSError, asyncssh.Error) as error:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "the workspace can't be reached") from error
    return _other_end(session.count_out, inner)


async def listen(
    client: asyncssh.SSHServerConnection, way: Way, session: Session, host: str, port: int
) -> asyncssh.SSHListener | bool:
    """Listen inside the workspace and bring what connects there to the client; False if that can't be."""

    async def accept(orig_host: str, orig_port: int) -> Tunnel:
        _, outer = await client.create_connection(
            _end(session.count_out), host, listener.get_port(), orig_host, orig_port
        )
        return _other_end(session.count_in, outer)

    try:
        upstream = await way.open(silent)
        listener = await upstream.create_server(accept, host, port, encoding=None)
    except (MLHubError, OSError, asyncssh.Error):
        return False
    return listener


def _end(count: Count) -> Callable[[], Tunnel]:
    # A forwarder has all the methods of a session but not its type, in asyncssh too.
    return lambda: cast(Tunnel, CountingForwarder(count))


def _other_end(count: Count, peer: Tunnel) -> Tunnel:
    return cast(Tunnel, CountingForwarder(count, cast(asyncssh.SSHForwarder, peer)))
