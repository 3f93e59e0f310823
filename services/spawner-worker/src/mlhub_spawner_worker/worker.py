"""One worker: its parts, and what it runs all the time."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from importlib.metadata import version

from mlhub_shared.bus import Lease
from mlhub_shared.contracts.queries import AttachAddress
from mlhub_shared.contracts.services import WorkerLease
from mlhub_shared.runtime.service import Runtime
from mlhub_shared.tasks import end_tasks
from mlhub_spawner_worker.backends.base import Backend
from mlhub_spawner_worker.capacity import MICRO, Load
from mlhub_spawner_worker.drain import Drain, LocalDrain, SharedDrain
from mlhub_spawner_worker.driver import Times, Tools
from mlhub_spawner_worker.handlers import answer_queries, consume_commands
from mlhub_spawner_worker.lifecycle import Place
from mlhub_spawner_worker.nodes import Nodes, identity_of, take_name
from mlhub_spawner_worker.placement import Node
from mlhub_spawner_worker.ports import WorkspacePorts
from mlhub_spawner_worker.probe import Probe
from mlhub_spawner_worker.queries import Queries
from mlhub_spawner_worker.reconcile import Reconciler
from mlhub_spawner_worker.records import RecordStore
from mlhub_spawner_worker.settings import SpawnerWorkerSettings
from mlhub_spawner_worker.siblings import Siblings
from mlhub_spawner_worker.standing_in import StandIn
from mlhub_spawner_worker.telling import Teller
from mlhub_spawner_worker.workspaces import Workspaces

_PATIENCE = timedelta(seconds=3)
"""For the consumers to end."""


class Worker:
    """Everything of a worker but its backend, which it is given open."""

    def __init__(
        self,
        runtime: Runtime,
        settings: SpawnerWorkerSettings,
        backend: Backend,
        *,
        probe: Probe,
        ports: WorkspacePorts,
        attach: AttachAddress | None = None,
    ) -> None:
        self._runtime, self._settings, self._backend, self._attach = runtime, settings, backend, attach
        bus = runtime.bus
        self._place = Place(settings.pool, settings.node)
        self._table = bus.start_table(bus.workspaces)
        policy = settings.policy(
            images_allowed=backend.images_allowed,
            gpus_allowed=backend.gpus_allowed,
            gpus_counted=backend.gpus_counted,
        )
        self._teller = Teller(bus)
        self._data = identity_of(settings.data_dir)
        self._identity = backend.cluster or self._data
        self._replica = settings.replica if backend.cluster is not None else ""
        self._shared_drain = SharedDrain(bus.start_table(bus.nodes), settings.node) if self._replica else None
        self._drain: Drain = self._shared_drain or LocalDrain(settings.data_dir)
        self._labels = settings.node_labels()
        self._leases = bus.start_table(bus.workers)
        self._started_at = runtime.clock()
        self._told_load = Load()
        self.siblings = Siblings(self._leases, settings.node, self._replica, lambda: self._lease.is_held)
        self._nodes = Nodes(self._leases, self._place, self._node, lambda: self.siblings.leads)
        self._tools = Tools(
            bus=bus,
            store=RecordStore(bus, self._table, self._teller),
            teller=self._teller,
            backend=backend,
            probe=probe,
            clock=runtime.clock,
            node=settings.node,
            times=_times(settings),
            policy=policy,
        )
        self.workspaces = Workspaces(self._tools, self._table, self._nodes, self.siblings, place=self._place)
        self._stand_in = StandIn(self._tools, self._nodes, self.workspaces, self._place)
        self.reconciler = Reconciler(self._tools, self._table, self.workspaces, self.siblings)
        key = self._lease_value().key
        self._lease = Lease(bus.workers, key, self._lease_value)
        self._queries = Queries(self._tools, self._leases, self._drain, ports, self._drained, key=key)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin; commands and queries are taken once the records are known and reconciled."""
        runtime = self._runtime
        await take_name(self._leases, self._lease_value())
        runtime.health.require("records", lambda: None if self._table.is_live else "the records are not followed")
        runtime.health.require("backend", lambda: self._backend.out_of_reach or None)
        runtime.health.require("reconciled", lambda: None if self.reconciler.done.is_set() else "not yet")
        runtime.keep_running("reconcile", self.reconciler.run)
        runtime.keep_running("line", self._when_reconciled(self.workspaces.line.serve))
        runtime.keep_running("stand-in", self._when_reconciled(self._stand_in.run))
        runtime.keep_running("nodes", self._when_reconciled(partial(self._nodes.follow, self.workspaces.line.look)))
        runtime.keep_running("records", self._when_reconciled(self.workspaces.follow_records))
        runtime.keep_running("telling", self._teller.run)
        if self._shared_drain is not None:
            # The others let go of what becomes this worker's before it begins.
            runtime.keep_running("lease", self._lease.run)
            runtime.keep_running("siblings", partial(self.siblings.follow, self._share_anew))
            runtime.keep_running("drain", partial(self._shared_drain.follow, self._drained))
        else:
            runtime.keep_running("lease", self._when_reconciled(self._lease.run))
        self._tasks.append(asyncio.ensure_future(self._open_doors()))
        self._tools.store.on_change(self._tell_of_load)

    async def aclose(self) -> None:
        """Claim nobody, take no more commands and stop acting; the workspaces run on."""
        self.workspaces.line.close()
        await end_tasks(*self._tasks, within=_PATIENCE)
        await self.workspaces.aclose()

    async def _open_doors(self) -> None:
        await self._ready()
        self._tasks += consume_commands(self._runtime.bus, self.workspaces, self._place)
        await answer_queries(self._runtime.bus, self._queries, self._place)

    def _tell_of_load(self, _: str) -> None:
        if self._load != self._told_load:
            self._lease.poke()

    @property
    def _load(self) -> Load:
        return self._tools.store.load(self._settings.node)

    async def _share_anew(self) -> None:
        await self.workspaces.let_go()
        self.workspaces.line.look()
        self.reconciler.look()

    def _drained(self) -> WorkerLease:
        self._lease.poke()
        self.workspaces.line.look()
        return self._lease_value()

    def _when_reconciled(self, work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            await self._ready()
            await work()

        return run

    async def _ready(self) -> None:
        await asyncio.gather(self.reconciler.done.wait(), self._leases.synced())

    def _node(self) -> Node:
        settings, backend = self._settings, self._backend
        return Node(
            name=settings.node,
            capacity=settings.capacity,
            cpu_total=backend.cpu_total,
            mem_total=backend.mem_total,
            cpu_capacity=settings.cpu_capacity,
            mem_capacity=settings.mem_capacity,
            gpus=backend.gpus,
            gpus_counted=backend.gpus_counted and backend.gpus_allowed,
            labels=self._labels,
            draining=self._drain.is_on,
        )

    def _lease_value(self) -> WorkerLease:
        node, load = self._node(), self._load
        taken = {gpu for record in self._tools.store.with_gpus(node.name) for gpu in record.gpu_ids}
        self._told_load = load
        return WorkerLease(
            node=node.name,
            identity=self._identity,
            replica=self._replica,
            data=self._data if self._replica else "",
            trouble=self._backend.out_of_reach,
            pool=self._settings.pool,
            backend=self._backend.name,
            capacity=node.capacity,
            running=load.running,
            cpu_total=node.cpu_total,
            mem_total=node.mem_total,
            cpu_capacity=node.cpu_capacity,
            mem_capacity=node.mem_capacity,
            cpu_granted=load.cpu / MICRO,
            mem_granted=load.mem,
            gpus=node.gpus,
            gpus_free=tuple(gpu for gpu in node.gpus if gpu not in taken),
            gpus_counted=node.gpus_counted,
            labels=dict(node.labels),
            draining=node.draining,
            attach=self._attach,
            version=version("mlhub-spawner-worker"),
            limits=self._backend.limits,
            started_at=self._started_at,
        )


def _times(settings: SpawnerWorkerSettings) -> Times:
    return Times(
        prepare=settings.prepare_timeout,
        start=settings.start_timeout,
        grace=settings.stop_grace,
        stop=settings.stop_timeout,
        secrets=settings.secrets_patience,
    )
