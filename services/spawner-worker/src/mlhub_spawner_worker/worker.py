"""One worker: its parts, and what it runs all the time."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from importlib.metadata import version

from mlhub_shared.bus import Lease
from mlhub_shared.contracts.queries import AttachAddress
from mlhub_shared.contracts.services import WorkerLease
from mlhub_shared.runtime.service import Runtime
from mlhub_shared.tasks import end_tasks
from mlhub_spawner_worker.backends.base import Backend
from mlhub_spawner_worker.driver import Times, Tools
from mlhub_spawner_worker.handlers import answer_queries, consume_commands
from mlhub_spawner_worker.lifecycle import Place
from mlhub_spawner_worker.probe import Probe
from mlhub_spawner_worker.queries import Queries
from mlhub_spawner_worker.reconcile import Reconciler
from mlhub_spawner_worker.records import RecordStore
from mlhub_spawner_worker.settings import SpawnerWorkerSettings
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
        attach: AttachAddress | None = None,
    ) -> None:
        self._runtime, self._settings, self._backend, self._attach = runtime, settings, backend, attach
        bus = runtime.bus
        self._place = Place(settings.pool, settings.node)
        self._table = bus.start_table(bus.workspaces)
        policy = settings.policy(images_allowed=backend.images_allowed, gpus_allowed=backend.gpus_allowed)
        self._teller = Teller(bus)
        self._tools = Tools(
            bus=bus,
            store=RecordStore(bus, self._table, self._teller),
            teller=self._teller,
            backend=backend,
            probe=probe,
            clock=runtime.clock,
            node=settings.node,
            times=_times(settings),
        )
        self.workspaces = Workspaces(
            self._tools, self._table, place=self._place, capacity=settings.capacity, policy=policy
        )
        self.reconciler = Reconciler(self._tools, self._table, self.workspaces)
        self._queries = Queries(self._tools, bus.start_table(bus.workers), policy=policy)
        self._started_at = runtime.clock()
        self._told_running = 0
        self._lease = Lease(bus.workers, settings.node, self._lease_value)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; commands and queries are taken once the records are known and reconciled."""
        runtime = self._runtime
        runtime.health.require("records", lambda: None if self._table.is_live else "the records are not followed")
        runtime.health.require("reconciled", lambda: None if self.reconciler.done.is_set() else "not yet")
        runtime.keep_running("reconcile", self.reconciler.run)
        runtime.keep_running("line", self._when_reconciled(self.workspaces.serve_line))
        runtime.keep_running("records", self._when_reconciled(self.workspaces.follow_records))
        runtime.keep_running("telling", self._teller.run)
        runtime.keep_running("lease", self._when_reconciled(self._lease.run))
        self._tasks.append(asyncio.ensure_future(self._open_doors()))
        self._tools.store.on_change(self._tell_of_load)

    async def aclose(self) -> None:
        """Take no more commands and stop acting; the workspaces run on."""
        await end_tasks(*self._tasks, within=_PATIENCE)
        await self.workspaces.aclose()

    async def _open_doors(self) -> None:
        await self.reconciler.done.wait()
        self._tasks += consume_commands(self._runtime.bus, self.workspaces, self._place)
        await answer_queries(self._runtime.bus, self._queries, self._place)

    def _tell_of_load(self, _: str) -> None:
        if self.workspaces.running != self._told_running:
            self._lease.poke()

    def _when_reconciled(self, work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            await self.reconciler.done.wait()
            await work()

        return run

    def _lease_value(self) -> WorkerLease:
        self._told_running = self.workspaces.running
        return WorkerLease(
            node=self._settings.node,
            pool=self._settings.pool,
            backend=self._backend.name,
            capacity=self._settings.capacity,
            running=self._told_running,
            cpu_total=self._backend.cpu_total,
            mem_total=self._backend.mem_total,
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
