"""From the gateway into a workspace: connections to attach endpoints."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import asyncssh

from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.queries import AttachAddress
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.errors import Permanent, Temporary
from mlhub_ssh_gateway.lean import LeanClient
from mlhub_ssh_gateway.quiet import Quiet
from mlhub_ssh_gateway.resolver import Resolver
from mlhub_ssh_gateway.sessions import Session
from mlhub_ssh_gateway.starting import Starter, Tell

_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
_HANDSHAKE = 10
"""Seconds for a worker to answer and to take our key."""
_KEEPALIVE = 30
"""Seconds between signs of life asked of a worker."""


@dataclass(frozen=True)
class Dialler:
    """Opens connections to attach endpoints with the gateway's key."""

    key: asyncssh.SSHKey

    async def dial(
        self, workspace: WorkspaceId, attach: AttachAddress, agent: str | None
    ) -> asyncssh.SSHClientConnection:
        """Enter a workspace; Temporary if its endpoint is not there, Permanent if it is not what the worker said."""
        try:
            return await asyncssh.connect(
                attach.host,
                attach.port,
                client_factory=LeanClient,
                username=workspace.name,
                client_keys=[self.key],
                known_hosts=([asyncssh.import_public_key(attach.host_key)], [], []),
                config=None,
                agent_path=None,
                agent_forwarding=agent or False,
                gss_host=None,
                encryption_algs=list(_CIPHERS),
                compression_algs=None,
                connect_timeout=_HANDSHAKE,
                login_timeout=_HANDSHAKE,
                keepalive_interval=_KEEPALIVE,
                preferred_auth="publickey",
            )
        except asyncssh.HostKeyNotVerifiable as error:
            raise Permanent("the worker's attach endpoint shows another host key than it announced") from error
        except asyncssh.PermissionDenied as error:
            raise Permanent("the worker does not know this gateway's key") from error
        except asyncssh.KeyImportError as error:
            raise Permanent("the worker announced a host key that can't be read") from error
        except (OSError, asyncssh.Error) as error:
            raise Temporary(f"workspace {workspace.address} can't be reached now") from error


@dataclass(frozen=True)
class Doors:
    """What it takes to get into any workspace, one for the whole gateway."""

    starter: Starter
    resolver: Resolver
    dialler: Dialler
    quiet: Quiet
    patience: timedelta
    """For a ready workspace to be reached."""


class Way:
    """One client's way into its workspace. Never shared: environment, agent and reverse ports belong to one client."""

    def __init__(self, session: Session, doors: Doors) -> None:
        self.workspace = session.login.workspace
        self._session, self._doors = session, doors
        self._lock = asyncio.Lock()
        self._open: dict[str | None, tuple[str | None, asyncssh.SSHClientConnection]] = {}
        self._closed = False

    async def ready(self, tell: Tell) -> WorkspaceRecord:
        """The record of the running workspace, started if need be; MLHubError in a sentence if it does not run."""
        return await self._doors.starter.ready(self.workspace, tell, lambda: self._doors.quiet.reason(self._session))

    async def open(self, tell: Tell, agent: str | None = None) -> asyncssh.SSHClientConnection:
        """A connection into the running workspace, started if need be; MLHubError in a sentence if there is no way.

        `agent` is the socket of the client's forwarded agent; it gets a connection of its own.
        """
        record = await self.ready(tell)
        async with self._lock:
            node, connection = self._open.get(agent, (None, None))
            if connection is not None and node == record.node and not connection.is_closed():
                return connection
            if connection is not None:
                connection.close()
            connection = await self._dial(agent)
            self._open[agent] = (record.node, connection)
            if self._closed:
                connection.close()
            return connection

    def close(self) -> None:
        """End everything that goes this way."""
        self._closed = True
        for _, connection in self._open.values():
            connection.close()

    async def _dial(self, agent: str | None) -> asyncssh.SSHClientConnection:
        backoff = Backoff(first=0.1, most=2)
        until = asyncio.get_running_loop().time() + self._doors.patience.total_seconds()
        while True:
            try:
                attach = await self._doors.resolver.locate(self.workspace)
                return await self._doors.dialler.dial(self.workspace, attach, agent)
            except Temporary:
                if self._closed or asyncio.get_running_loop().time() >= until:
                    raise
            await backoff.sleep()
