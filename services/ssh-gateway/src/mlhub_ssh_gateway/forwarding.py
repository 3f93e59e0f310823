"""Forwarded connections: through a session's way or straight to the workspace's own SSH server, counted."""

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import asyncssh

from mlhub_shared.contracts.workspace import Endpoint
from mlhub_shared.errors import MLHubError
from mlhub_ssh_gateway.destinations import Pattern, Place, own_ssh, place_of
from mlhub_ssh_gateway.sessions import Session
from mlhub_ssh_gateway.upstream import Way

Count = Callable[[int], None]
Tunnel = asyncssh.SSHTCPSession[bytes]

_INSIDE = "localhost"
_CONNECT = 10.0
"""Seconds for a workspace to take a connection."""


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


def prohibited(sentence: str) -> asyncssh.ChannelOpenError:
    """The refusal of a connection that may not be."""
    return asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, sentence)


async def connect(way: Way, session: Session, host: str, port: int, *, outward: Sequence[Pattern]) -> Tunnel:
    """Reach a port for the client; ChannelOpenError if there is no way, or it may not be."""
    place = place_of(host, port, way.workspace.name, outward=outward)
    if place is None:
        raise prohibited("only ports of the workspace itself can be reached")
    try:
        if place is Place.ENDPOINT and (endpoint := own_ssh(await way.ready(silent), port)) is not None:
            return await straight(session, endpoint)
        upstream = await way.open(silent)
        # No await may follow this one: what the workspace says first would find nobody yet who takes it.
        _, inner = await upstream.create_connection(
            _end(session.count_in), _INSIDE if place is Place.ENDPOINT else host, port
        )
    except MLHubError as error:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, str(error)) from error
    except asyncssh.ChannelOpenError:
        raise
    except (OSError, asyncssh.Error) as error:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "the workspace can't be reached") from error
    return _other_end(session.count_out, inner)


async def straight(session: Session, endpoint: Endpoint) -> Tunnel:
    """Reach the port that a workspace answers on, and what passes is between the client and it."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_CONNECT):
            # As above: no await behind it.
            _, inner = await loop.create_connection(
                lambda: CountingForwarder(session.count_in), endpoint.host, endpoint.port
            )
    except (OSError, TimeoutError) as error:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "the workspace can't be reached") from error
    return _other_end(session.count_out, cast(Tunnel, inner))


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
