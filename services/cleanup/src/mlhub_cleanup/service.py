"""Puts the clean-up together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from mlhub_cleanup.auth import Gate
from mlhub_cleanup.commands import Commands
from mlhub_cleanup.deletions import Deletions
from mlhub_cleanup.hub_api import HubApi
from mlhub_cleanup.settings import CleanupSettings
from mlhub_cleanup.sweep import Sweep
from mlhub_cleanup.timers import TimerKeeper
from mlhub_cleanup.web import Web
from mlhub_cleanup.workers import LostWorkers
from mlhub_shared.bus import Table
from mlhub_shared.contracts.services import WorkerLease
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.runtime.service import Runtime


@asynccontextmanager
async def build(runtime: Runtime, *, settings: CleanupSettings) -> AsyncIterator[None]:
    """Start everything on the service's bus; its routes go onto the service's application."""
    bus, clock = runtime.bus, runtime.clock
    records, leases = bus.start_table(bus.workspaces), bus.start_table(bus.workers)
    commands = Commands(bus, clock)
    timers = TimerKeeper(bus, records, commands, clock, settings.warn_before)
    workers = LostWorkers(bus, records, leases, clock, settings.worker_lost_after)
    gate = Gate(settings)
    async with HubApi(settings.hub_api_url, settings.hub_api_token) as hub:
        sweep = Sweep(bus, records, leases, commands, hub, clock)
        Web(bus, records, sweep, gate, clock, settings).add_to(runtime.app)
        for name, table in (("records", records), ("leases", leases)):
            runtime.health.require(name, partial(_not_live, table))
        runtime.keep_running("timers", timers.follow)
        runtime.keep_running("timers-compared", timers.compare)
        runtime.keep_running("workers", workers.watch)
        if settings.interval is not None:
            runtime.keep_running("sweep", partial(sweep.run, settings.interval))
        timers.consume()
        Deletions(bus, records, commands, clock).consume()
        try:
            yield
        finally:
            await runtime.end()
            await gate.close()


def _not_live(table: Table[WorkspaceRecord] | Table[WorkerLease]) -> str | None:
    return None if table.is_live else "not in step with the bus"
