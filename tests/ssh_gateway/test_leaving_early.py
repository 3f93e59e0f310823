"""A client that leaves while its program starts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import asyncssh

from mlhub_shared.contracts.queries import AttachAddress
from mlhub_spawner_worker.attach import AttachServer
from tests.ssh_gateway.place import Place


class _Unanswered(asyncssh.SSHServerChannel[bytes]):
    """Has started its program, and has not said so yet."""

    def _process_exec_request(self, packet: asyncssh.packet.SSHPacket) -> None:  # type: ignore[override]
        # None: asyncssh sends no answer yet.
        cast(_Started, self._session).started.set()


class _Started(asyncssh.SSHServerSession[bytes]):
    def __init__(self) -> None:
        self.started, self.ended = asyncio.Event(), asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


class _SlowWorker(asyncssh.SSHServer):
    def __init__(self, session: _Started) -> None:
        self._session = session

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        return False

    def session_requested(self) -> tuple[asyncssh.SSHServerChannel[bytes], _Started]:
        channel: asyncssh.SSHServerChannel[bytes] = self._connection.create_server_channel(encoding=None)
        channel.__class__ = _Unanswered
        return channel, self._session


class _Slow:
    def __init__(self, address: AttachAddress) -> None:
        self.address = address


@asynccontextmanager
async def slow_worker(place: Place) -> AsyncIterator[_Started]:
    """In the place of the worker: one that does not say that a program has started."""
    key, session = asyncssh.generate_private_key("ssh-ed25519"), _Started()
    listener = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=lambda: _SlowWorker(session), server_host_keys=[key], config=None, encoding=None
    )
    line = " ".join(key.export_public_key().decode().split()[:2])
    address = AttachAddress(host="127.0.0.1", port=listener.get_port(), host_key=line)
    place.attach = cast(AttachServer, _Slow(address))
    try:
        yield session
    finally:
        listener.close()
        await listener.wait_closed()


async def test_the_program_of_a_channel_closed_meanwhile_is_ended(place: Place) -> None:
    alice = await place.client("alice")
    async with slow_worker(place) as program, place.connect("alice", alice.key) as connection:
        channel, _ = await connection.create_session(asyncssh.SSHClientSession, command="run")
        async with asyncio.timeout(20):
            await program.started.wait()
            channel.close()
            await program.ended.wait()
        assert not connection.is_closed()
