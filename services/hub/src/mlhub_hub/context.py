"""What every part of the hub may need, in one place: `settings["mlhub"]` of the web application."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from jupyterhub import orm
from pydantic import ValidationError
from tornado import web

from mlhub_hub.commands import Commands
from mlhub_hub.nodes import Nodes
from mlhub_hub.secret_values import SecretValues
from mlhub_hub.settings import HubSettings
from mlhub_shared.bus import Bus, Table
from mlhub_shared.contracts.commands import Command
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.policy import Policy
from mlhub_shared.contracts.services import OpenSession, ProxyActivity, ProxyState, WorkerLease, by_node
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.errors import MLHubError
from mlhub_shared.runtime.clock import Clock, utc_now

if TYPE_CHECKING:
    from mlhub_hub.spawner import BusSpawner

SETTINGS_KEY = "mlhub"
"""Where handlers find the context: `self.settings[SETTINGS_KEY]`."""

GRACE = timedelta(seconds=30)
"""How long a record that vanished may take to come back: workers write them anew after the bus lost its store."""


@dataclass(frozen=True)
class Before:
    """What a server was before a change that no start has accepted yet."""

    options: dict[str, Any]
    display_name: str | None


_STARTS_AT_ONCE = 2
"""Enough for one to be worked on while another waits for the bus."""


@dataclass
class HubContext:
    """The hub's settings, its bus, and the tables it follows."""

    settings: HubSettings
    bus: Bus
    workspaces: Table[WorkspaceRecord]
    """By workspace name."""
    workers: Table[WorkerLease]
    """By node, and by replica where several share one; see `by_node`."""
    proxies: Table[ProxyState]
    """By replica."""
    activity: Table[ProxyActivity]
    """By replica of the proxy."""
    sessions: Table[OpenSession]
    """By id."""
    nodes: Nodes
    policy: Policy
    """What anybody may ask for."""
    commands: Commands
    secret_values: SecretValues
    clock: Clock = utc_now
    spawners: "WeakValueDictionary[str, BusSpawner]" = field(default_factory=WeakValueDictionary)
    """The spawner of each workspace that JupyterHub has in hand, by workspace name."""
    locks: "WeakValueDictionary[str, asyncio.Lock]" = field(default_factory=WeakValueDictionary)
    """Held by who starts or removes a workspace, by user and server as they were asked for; see `alone`."""
    starts: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_STARTS_AT_ONCE))
    """Held by who is being started, until the bus has the command."""
    unapplied: WeakKeyDictionary[orm.Spawner, Before] = field(default_factory=WeakKeyDictionary)
    """What the options were before a change that no start has accepted yet."""
    updates: set[str] = field(default_factory=set)
    """The workspaces whose next start fetches its image anew, by name; that one start and no other."""
    missing_since: dict[str, float] = field(default_factory=dict)
    """When a record went, by workspace name, in the event loop's time."""
    followed_since: float = 0.0
    """When the tables were complete for the first time."""

    @classmethod
    async def follow(cls, settings: HubSettings, bus: Bus, *, clock: Clock = utc_now) -> "HubContext":
        """Follow what the hub needs to know, and wait until it is known."""
        workspaces = bus.start_table(bus.workspaces)
        workers, proxies = bus.start_table(bus.workers), bus.start_table(bus.proxies)
        activity, sessions = bus.start_table(bus.activity), bus.start_table(bus.sessions)
        await asyncio.gather(*(table.synced() for table in (workspaces, workers, proxies, activity, sessions)))
        return cls(
            settings=settings,
            bus=bus,
            workspaces=workspaces,
            workers=workers,
            proxies=proxies,
            activity=activity,
            sessions=sessions,
            nodes=Nodes(workers),
            policy=settings.policy_of_backend(),
            commands=Commands(bus, workspaces, pool=settings.pool, clock=clock),
            secret_values=SecretValues(bus.secrets),
            clock=clock,
            followed_since=asyncio.get_running_loop().time(),
        )

    def workspace(self, user: str, server: str) -> WorkspaceId:
        """The identity of a user's server; a 400 for names that nobody can have."""
        try:
            return WorkspaceId(hub=self.settings.hub_name, user=user, server=server)
        except ValidationError:
            raise web.HTTPError(400, "The name of a user or a workspace has at most 255 characters") from None

    def workers_of_pool(self) -> list[WorkerLease]:
        """What workers that live now tell of the nodes that run this hub's workspaces, once for each node."""
        return [lease for lease in by_node(self.workers.values()).values() if lease.pool == self.settings.pool]

    def policy_now(self) -> Policy:
        """What may be asked for with the machines there are; those that come back are trusted to have what they had.

        A cluster says nothing of its GPUs: it may add a machine that has some.
        """
        workers = self.workers_of_pool()
        if self.policy.gpus_counted or not workers or any(worker.gpus for worker in workers):
            return self.policy
        return self.policy.model_copy(update={"gpus_allowed": False})

    def tls_pin(self) -> str | None:
        """How curl knows the proxies' certificate where nobody vouches for it; two while one replaces the other."""
        return ";".join(sorted({state.tls_pin for state in self.proxies.values() if state.tls_pin})) or None

    async def trace_of(self, workspace: WorkspaceId) -> WorkspaceRecord | Command | None:
        """What shows that a workspace has run, or is about to; a 503 while nobody can say."""
        if (record := self.workspaces.value(workspace.name)) is not None:
            return record
        unknown = web.HTTPError(503, f"Nobody can say just now what {workspace.user} has run. Try again in a moment.")
        if not self.workspaces.is_live:
            raise unknown
        try:
            return await self.commands.last(workspace)
        except MLHubError:
            raise unknown from None

    def may_come_back(self, workspace: WorkspaceId) -> bool:
        """A workspace without a record may be running all the same: no worker has had the time to say so."""
        since = self.missing_since.get(workspace.name, self.followed_since)
        is_recent = asyncio.get_running_loop().time() - since < GRACE.total_seconds()
        return is_recent or not self.workers_of_pool() or not self.workspaces.is_live
