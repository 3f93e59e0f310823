"""One client: who it is, and what it asks for."""

import weakref
from collections.abc import Awaitable
from dataclasses import dataclass, field

import asyncssh
import structlog

from mlhub_ssh_gateway import forwarding
from mlhub_ssh_gateway.access import Doorkeeper, Login
from mlhub_ssh_gateway.metrics import LOGINS
from mlhub_ssh_gateway.relay import Down, EowChannel
from mlhub_ssh_gateway.sessions import Session, Sessions
from mlhub_ssh_gateway.upstream import Doors, Way

log = structlog.get_logger(__name__)

_MOST_PASSWORDS = 3
_MOST_KEYS = 20
"""Distinct keys that one connection may offer; an agent may hold several."""


@dataclass(frozen=True)
class Desk:
    """What every connection needs, one for the whole gateway."""

    doorkeeper: Doorkeeper
    doors: Doors
    sessions: Sessions
    clients: "set[Client]" = field(default_factory=set)
    """Those who are in."""


class Client(asyncssh.SSHServer):
    """One connection, from its login to its end."""

    def __init__(self, desk: Desk, address: str) -> None:
        self._desk, self._address = desk, address
        self._connection: asyncssh.SSHServerConnection
        self._decided: dict[tuple[str, str], Login | None] = {}
        self._passwords = 0
        self._candidate: Login | None = None
        self._session: Session | None = None
        self._way: Way | None = None
        self._downs: weakref.WeakSet[Down] = weakref.WeakSet()

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Keep the connection to open channels on."""
        self._connection = conn

    def connection_lost(self, exc: Exception | None) -> None:
        """Close what it opened."""
        self._desk.clients.discard(self)
        if self._way is not None:
            self._way.close()
        if self._session is not None:
            self._desk.sessions.close(self._session)
        elif self._decided or self._passwords:
            LOGINS.labels(result="refused").inc()
            log.info("login.refused", client=self._address)

    def begin_auth(self, username: str) -> bool:
        """Nobody comes in without a proof."""
        return True

    def public_key_auth_supported(self) -> bool:
        """By a key that is registered in the hub."""
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether this key may enter under this login name; asked for offers and again for signatures."""
        known = (username, key.get_fingerprint())
        if known not in self._decided:
            if len(self._decided) >= _MOST_KEYS:
                return False
            self._decided[known] = await self._desk.doorkeeper.by_key(username, key)
        # Last, and with no await behind it: whoever signs right now is who comes in, not who was merely offered.
        self._candidate = self._decided[known]
        return self._candidate is not None

    def password_auth_supported(self) -> bool:
        """By an API token of the hub in the place of a password."""
        return True

    async def validate_password(self, username: str, password: str) -> bool:
        """Whether this token may enter under this login name."""
        self._passwords += 1
        if self._passwords > _MOST_PASSWORDS:
            self._connection.disconnect(
                asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many authentication failures"
            )
            return False
        self._candidate = await self._desk.doorkeeper.by_token(username, password)
        return self._candidate is not None

    def auth_completed(self) -> None:
        """The candidate is in; what is still being decided comes too late."""
        login = self._candidate
        if login is None or self._session is not None:
            self._connection.abort()
            return
        LOGINS.labels(result="accepted").inc()
        log.info("login.accepted", client=self._address, user=login.requester, workspace=login.workspace.name)
        self._session = self._desk.sessions.open(login, self._address)
        self._way = Way(login.workspace, self._desk.doors)
        self._desk.clients.add(self)

    def session_requested(self) -> tuple[asyncssh.SSHServerChannel[bytes], Down]:
        """A shell, a command or a subsystem."""
        way, session = self._require_login()
        channel: asyncssh.SSHServerChannel[bytes] = self._connection.create_server_channel(encoding=None)
        # There is no public way to another class of channel.
        channel.__class__ = EowChannel
        down = Down(way, session)
        self._downs.add(down)
        return channel, down

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Awaitable[asyncssh.SSHTCPSession[bytes]]:
        """A port of the workspace for the client."""
        return forwarding.connect(*self._require_login(), dest_host, dest_port)

    def server_requested(self, listen_host: str, listen_port: int) -> bool | Awaitable[asyncssh.SSHListener | bool]:
        """A port of the client for the workspace."""
        try:
            way, session = self._require_login()
        except asyncssh.ChannelOpenError:
            return False
        return forwarding.listen(self._connection, way, session, listen_host, listen_port)

    def dismiss(self, sentence: str) -> None:
        """End the connection, and say why."""
        for down in self._downs:
            down.dismiss(sentence)
        self._connection.disconnect(asyncssh.DISC_BY_APPLICATION, sentence)

    def _require_login(self) -> tuple[Way, Session]:
        if self._way is None or self._session is None:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "log in first")
        # A connection may be held for days; what is opened over it needs a key that is good today.
        if not self._desk.doorkeeper.is_still_in(self._session.login):
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "this key does not log in any more"
            )
        return self._way, self._session
