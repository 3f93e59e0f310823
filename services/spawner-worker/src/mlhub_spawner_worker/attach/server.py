"""The SSH server that the gateway, and nobody else, enters workspaces through."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncssh
import structlog

from mlhub_shared.contracts.queries import AttachAddress
from mlhub_spawner_worker.attach.forward import Forward
from mlhub_spawner_worker.attach.host_key import load_or_make, public_line
from mlhub_spawner_worker.attach.lean import LeanConnection
from mlhub_spawner_worker.attach.listening import Listening
from mlhub_spawner_worker.attach.session import EowChannel, Session
from mlhub_spawner_worker.entry import LOCALHOST, Entry, Loopback

log = structlog.get_logger(__name__)

Enter = Callable[[str], Entry | None]
"""How to enter the workspace of this name; None while it can't be."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_LOGIN_SECONDS = 20
_KEEPALIVE_SECONDS = 30
_FAREWELL = 5.0
"""Seconds for programs to end when the endpoint does; who ignores a hang-up goes on."""
_KEY_EXCHANGES = ("mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org")
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")


class AttachServer:
    """Listens while it is entered; the login name is a workspace's name."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        host_key_file: Path,
        gateway_public_key: str | None,
        enter: Enter,
    ) -> None:
        """Port 0 means any free one; without the gateway's public key everybody is refused."""
        self._host, self._port, self._enter = host, port, enter
        self._host_key = load_or_make(host_key_file)
        self._gateway_key = asyncssh.import_public_key(gateway_public_key) if gateway_public_key else None
        self._open = _Open()
        self._listener: asyncssh.SSHAcceptor | None = None

    @property
    def address(self) -> AttachAddress:
        """Where it listens, with the host key to expect there."""
        if self._listener is None:
            raise RuntimeError("the attach endpoint does not listen yet")
        return AttachAddress(host=self._host, port=self._listener.get_port(), host_key=public_line(self._host_key))

    async def __aenter__(self) -> Self:
        if self._gateway_key is None:
            log.warning("attach.closed", reason="no public key of the gateway is set, so SSH into workspaces is off")
        self._listener = await asyncssh.listen(
            self._host,
            self._port,
            server_factory=lambda: _Server(self._gateway_key, self._enter, self._open),
            server_host_keys=[self._host_key],
            config=None,
            encoding=None,
            line_editor=False,
            allow_scp=False,
            x11_forwarding=False,
            agent_forwarding=True,
            password_auth=False,
            kbdint_auth=False,
            gss_host=None,
            login_timeout=_LOGIN_SECONDS,
            keepalive_interval=_KEEPALIVE_SECONDS,
            compression_algs=None,
            kex_algs=list(_KEY_EXCHANGES),
            encryption_algs=list(_CIPHERS),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listener is not None:
            self._listener.close()
            await self._listener.wait_closed()
            self._listener = None
        for connection in tuple(self._open.connections):
            connection.abort()
        # asyncssh tells its sessions in the next turns of the loop; they hang up on their programs.
        closing = [asyncio.ensure_future(connection.wait_closed()) for connection in self._open.connections]
        for works in (closing, self._open.tasks):
            if works:
                await asyncio.wait(works, timeout=_FAREWELL)


@dataclass(frozen=True)
class _Open:
    """What is going on."""

    connections: set[asyncssh.SSHServerConnection] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do this work, and remember it until it is done."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


class _Server(asyncssh.SSHServer):
    """One connection of the gateway."""

    def __init__(self, gateway_key: asyncssh.SSHKey | None, enter: Enter, open_: _Open) -> None:
        self._gateway_key, self._enter, self._open = gateway_key, enter, open_
        self._connection: asyncssh.SSHServerConnection

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Keep the connection to close it with the server."""
        self._connection = conn
        # There is no public way to another class of connection.
        conn.__class__ = LeanConnection
        self._open.connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._open.connections.discard(self._connection)

    def public_key_auth_supported(self) -> bool:
        """The one way in."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Let the gateway's key in, whatever the workspace."""
        return self._gateway_key is not None and key == self._gateway_key

    def session_requested(self) -> tuple[asyncssh.SSHServerChannel[bytes], Session]:
        """Open a session inside the workspace."""
        name, entry = self._require_entry()
        channel: asyncssh.SSHServerChannel[bytes] = self._connection.create_server_channel(encoding=None)
        # There is no public way to another class of channel.
        channel.__class__ = EowChannel
        return channel, Session(name, entry, connection_info=self._connection_info(), keep=self._open.keep)

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool | Awaitable[asyncssh.SSHTCPSession[bytes]]:
        """Connect from inside the workspace; where to else than to itself is for the gateway to judge."""
        _, entry = self._require_entry()
        if entry.loopback is None:
            return True
        return self._connect(entry.loopback, LOCALHOST if dest_host in _LOOPBACK else dest_host, dest_port)

    def server_requested(self, listen_host: str, listen_port: int) -> bool | Awaitable[asyncssh.SSHListener | bool]:
        """Listen on the workspace's loopback for the client, never for the world."""
        entry = self._enter(self._name())
        if entry is None or listen_host not in _LOOPBACK:
            return False
        return True if entry.loopback is None else self._listen(entry.loopback, listen_host, listen_port)

    async def _listen(self, loopback: Loopback, host: str, port: int) -> asyncssh.SSHListener | bool:
        listening = await Listening.open(loopback, self._connection, host, port, self._open.keep)
        return listening or False

    async def _connect(self, loopback: Loopback, host: str, port: int) -> Forward:
        forward = await Forward.open(loopback, host, port)
        self._open.keep(forward.run())
        if self._connection.is_closed():
            # asyncssh does not tell the session of a channel that is gone before it is open.
            forward.connection_lost(None)
        return forward

    def _name(self) -> str:
        return str(self._connection.get_extra_info("username"))

    def _require_entry(self) -> tuple[str, Entry]:
        name = self._name()
        if (entry := self._enter(name)) is None:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, f"workspace {name} is not running")
        return name, entry

    def _connection_info(self) -> dict[str, str]:
        peer, own = self._connection.get_extra_info("peername"), self._connection.get_extra_info("sockname")
        return {
            "SSH_CONNECTION": f"{peer[0]} {peer[1]} {own[0]} {own[1]}",
            "SSH_CLIENT": f"{peer[0]} {peer[1]} {own[1]}",
        }
