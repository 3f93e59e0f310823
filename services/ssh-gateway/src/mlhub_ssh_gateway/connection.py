"""One client: who it is, and what it asks for."""

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import asyncssh
import structlog

from mlhub_shared.errors import MLHubError
from mlhub_ssh_gateway import forwarding
from mlhub_ssh_gateway.access import KEY, TOKEN, WORKSPACE_KEY, Denial, Doorkeeper, Login
from mlhub_ssh_gateway.admission import Pace
from mlhub_ssh_gateway.destinations import Pattern
from mlhub_ssh_gateway.forwarding import prohibited
from mlhub_ssh_gateway.lean import LITTLE_WINDOW, WIDE_WINDOW, LeanServerConnection, bound_unsent
from mlhub_ssh_gateway.lockout import Lockout
from mlhub_ssh_gateway.metrics import FORWARDS_REFUSED, LOCKED, LOGINS
from mlhub_ssh_gateway.neighbours import Neighbours
from mlhub_ssh_gateway.refusals import Refusals
from mlhub_ssh_gateway.relay import Down, EowChannel
from mlhub_ssh_gateway.sessions import Session, Sessions
from mlhub_ssh_gateway.upstream import Doors, Way

log = structlog.get_logger(__name__)

_MOST_PASSWORDS = 3
_MOST_OFFERS = 60
"""Keys that one connection may offer, and signatures; an agent may hold several."""

_MOST_CHANNELS = 64
"""At once, of one connection: sessions and forwarded connections."""
_WIDE_CHANNELS = 8
"""Of those, the ones that may take much at once; the rest get by with little, so that nobody fills the memory."""

_OWN_SSH_ONLY = "this key is for connections to the workspace's own SSH server"


@dataclass(frozen=True)
class Desk:
    """What every connection needs, one for the whole gateway."""

    doorkeeper: Doorkeeper
    doors: Doors
    sessions: Sessions
    neighbours: Neighbours
    refusals: Refusals
    lockout: Lockout
    pace: Pace
    """Of the logins of one requester."""
    max_connections: int
    """Of one requester."""
    outward: Sequence[Pattern] = ()
    """Where forwarded connections may lead beside the workspace."""
    clients: "set[Client]" = field(default_factory=set)
    """Those who are in."""

    def connections_of(self, requester: str) -> int:
        """How many of one requester's are open."""
        return sum(client.requester == requester for client in self.clients)


class Client(asyncssh.SSHServer):
    """One connection, from its login to its end."""

    def __init__(self, desk: Desk, address: str) -> None:
        self._desk, self._address = desk, address
        self._connection: asyncssh.SSHServerConnection
        self._login_name = ""
        self._offers = self._passwords = 0
        self._offered: tuple[str, asyncssh.SSHKey] | None = None
        self._result: str | None = None
        """How the last attempt to log in ended, as the metrics name it."""
        self._candidate: Login | None = None
        self._login: Login | None = None
        self._session: Session | None = None
        self._way: Way | None = None
        self._downs: weakref.WeakSet[Down] = weakref.WeakSet()

    @property
    def requester(self) -> str | None:
        """Whoever is in."""
        return self._login.requester if self._login else None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Keep the connection to open channels on."""
        self._connection = conn
        # There is no public way to hear of a signature's proof.
        conn.__class__ = ProvingConnection
        bound_unsent(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        """Close what it opened."""
        self._desk.clients.discard(self)
        if self._way is not None:
            self._way.close()
        if self._session is not None:
            self._desk.sessions.close(self._session)
        elif self._login is None and self._result is not None:
            LOGINS.labels(result=self._result).inc()
            # Never the login name: people type passwords there too.
            workspace = self._desk.doorkeeper.existing(self._login_name)
            name = workspace.name if workspace else None
            log.info("login.refused", client=self._address, workspace=name, result=self._result)
            if self._result == "refused":
                self._desk.refusals.login_refused(self._address, workspace, TOKEN if self._passwords else KEY)

    def begin_auth(self, username: str) -> bool:
        """Nobody comes in without a proof."""
        self._login_name = username
        return True

    def public_key_auth_supported(self) -> bool:
        """By a key that is registered in the hub."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether this key is worth a proof; asked for offers and again for signatures, so it costs next to nothing."""
        self._offers += 1
        if self._offers > _MOST_OFFERS:
            self._turn_away()
            return False
        self._offered = username, key
        if self._desk.doorkeeper.knows(username, key):
            return True
        self._result = self._result or "refused"
        return False

    async def signed(self, *, is_proof: bool) -> bool:
        """A signature by the key offered last came. Whether whoever made it may enter."""
        if not is_proof or self._offered is None:
            self._result = self._result or "refused"
            return False
        return await self._decide(partial(self._desk.doorkeeper.by_key, *self._offered))

    def password_auth_supported(self) -> bool:
        """By an API token of the hub in the place of a password."""
        return True

    async def validate_password(self, username: str, password: str) -> bool:
        """Whether this token may enter under this login name."""
        self._passwords += 1
        if self._passwords > _MOST_PASSWORDS:
            self._turn_away()
            return False
        if self._desk.lockout.is_locked(username, self._address):
            LOCKED.inc()
            self._result = self._result or "refused"
            return False
        return await self._decide(partial(self._look_at, username, password))

    def auth_completed(self) -> None:
        """The candidate is in; what is still being decided comes too late."""
        login = self._candidate
        if login is None or self._login is not None:
            self._connection.abort()
            return
        if self._desk.connections_of(login.requester) >= self._desk.max_connections:
            sentence = f"{self._desk.max_connections} connections of yours are open already"
            self._result = "too-many"
            self._connection.disconnect(asyncssh.DISC_TOO_MANY_CONNECTIONS, sentence)
            return
        LOGINS.labels(result="accepted").inc()
        log.info("login.accepted", client=self._address, user=login.requester, workspace=login.workspace.name)
        self._login = login
        self._desk.clients.add(self)
        if login.method != WORKSPACE_KEY:
            self._begin(login)

    def session_requested(self) -> tuple[asyncssh.SSHServerChannel[bytes], Down]:
        """A shell, a command or a subsystem."""
        way, session = self._require_session()
        self._require_channel()
        channel: asyncssh.SSHServerChannel[bytes] = self._connection.create_server_channel(
            encoding=None, window=LITTLE_WINDOW
        )
        # There is no public way to another class of channel.
        channel.__class__ = EowChannel
        down = Down(way, session, is_wide=len(self._connection._channels) <= _WIDE_CHANNELS)
        self._downs.add(down)
        return channel, down

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> tuple[asyncssh.SSHTCPChannel[bytes], Awaitable[asyncssh.SSHTCPSession[bytes]]]:
        """A port of the workspace for the client."""
        login = self._require_login()
        self._require_channel()
        window = WIDE_WINDOW if len(self._connection._channels) < _WIDE_CHANNELS else LITTLE_WINDOW
        return self._connection.create_tcp_channel(window=window), self._forward(login, dest_host, dest_port)

    def server_requested(self, listen_host: str, listen_port: int) -> bool | Awaitable[asyncssh.SSHListener | bool]:
        """A port of the client for the workspace."""
        try:
            way, session = self._require_session()
        except asyncssh.ChannelOpenError:
            return False
        return forwarding.listen(self._connection, way, session, listen_host, listen_port)

    def dismiss(self, sentence: str) -> None:
        """End the connection, and say why."""
        for down in self._downs:
            down.dismiss(sentence)
        self._connection.disconnect(asyncssh.DISC_BY_APPLICATION, sentence)

    async def _forward(self, login: Login, host: str, port: int) -> asyncssh.SSHTCPSession[bytes]:
        try:
            if login.method == WORKSPACE_KEY:
                return await self._forward_straight(login, host, port)
            return await forwarding.connect(*self._require_session(), host, port, outward=self._desk.outward)
        except asyncssh.ChannelOpenError as error:
            if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
                FORWARDS_REFUSED.inc()
                if (other := self._desk.neighbours.named(host)) is not None and other != login.workspace:
                    self._deny(Denial(login.requester, other, login.method, login.fingerprint))
            raise

    async def _forward_straight(self, login: Login, host: str, port: int) -> asyncssh.SSHTCPSession[bytes]:
        found = self._desk.neighbours.shown_by(login, host, port)
        if found is None:
            raise prohibited(_OWN_SSH_ONLY)
        workspace, endpoint = found
        session = self._session or self._begin(replace(login, requester=f"user:{workspace.user}", workspace=workspace))
        if session.login.workspace != workspace:
            raise prohibited("this connection is for another workspace already")
        return await forwarding.straight(session, endpoint)

    def _begin(self, login: Login) -> Session:
        self._session = self._desk.sessions.open(login, self._address, self.dismiss)
        self._way = Way(self._session, self._desk.doors)
        return self._session

    async def _look_at(self, username: str, token: str) -> Login | Denial | None:
        decision = await self._desk.doorkeeper.by_token(username, token)
        if decision is None:
            self._desk.lockout.failed(username, self._address)
        else:
            self._desk.lockout.succeeded(username, self._address)
        return decision

    async def _decide(self, decide: Callable[[], Awaitable[Login | Denial | None]]) -> bool:
        try:
            decision = await decide()
            if isinstance(decision, Login) and (wait := self._desk.pace.spend(decision.requester)):
                await asyncio.sleep(wait)
                decision = await decide()
        except MLHubError as error:
            # The hub's trouble is nobody's guess.
            self._result = "undecided"
            log.warning("login.undecided", client=self._address, error=str(error))
            return False
        if decision is None:
            self._result = self._result or "refused"
        elif isinstance(decision, Denial):
            self._result = "denied"
            self._deny(decision)
        # Last, and with no await behind it: who comes in is who has been decided about just now.
        self._candidate = decision if isinstance(decision, Login) else None
        return self._candidate is not None

    def _deny(self, denial: Denial) -> None:
        self._desk.refusals.denied(denial.requester, denial.workspace, self._address, denial.method, denial.fingerprint)

    def _turn_away(self) -> None:
        self._connection.disconnect(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many authentication failures")

    def _require_login(self) -> Login:
        if self._login is None:
            raise prohibited("log in first")
        # A connection may be held for days; what is opened over it needs a key that is good today.
        if not self._desk.doorkeeper.has_key(self._session.login if self._session else self._login):
            raise prohibited("this key does not log in any more")
        return self._login

    def _require_channel(self) -> None:
        # There is no public way to what clients have open.
        if len(self._connection._channels) >= _MOST_CHANNELS:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_RESOURCE_SHORTAGE, f"{_MOST_CHANNELS} channels of this connection are open already"
            )

    def _require_session(self) -> tuple[Way, Session]:
        login = self._require_login()
        if login.method == WORKSPACE_KEY or self._way is None or self._session is None:
            raise prohibited(_OWN_SSH_ONLY)
        return self._way, self._session


class ProvingConnection(LeanServerConnection):
    """A connection that tells its client when a key has been proved, not merely offered.

    Whoever proves a key that may not enter is refused then, just like everybody else.
    """

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        """Whether a key is worth a signature; with one, whether it lets in."""
        is_good = await super().validate_public_key(username, key_data, msg, signature)
        owner = self.get_owner()
        if not msg:
            return is_good
        return isinstance(owner, Client) and await owner.signed(is_proof=is_good)
