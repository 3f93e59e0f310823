"""Asking for the end of every workspace over the bus, so that each is recorded as stopped and stays so."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from mlhub_shared.bus import Bus, BusSettings
from mlhub_shared.bus.table import Table
from mlhub_shared.contracts.commands import StopWorkspace, next_generation
from mlhub_shared.contracts.workspace import Phase, Reason, WorkspaceRecord
from mlhub_shared.errors import MLHubError
from mlhub_shared.runtime.clock import microseconds, utc_now
from mlhub_standalone.console import plural

REQUESTER = "service:standalone"
_LOOK = 0.3
"""Seconds between two looks; a command that the worker has not read yet becomes a record within one."""

_OPEN = timedelta(seconds=5)


async def stop_all(settings: BusSettings, *, within: float, say: Callable[[str], None]) -> bool:
    """Stop every workspace that is up or on its way, and wait for it; False if some were not stopped in time."""
    try:
        async with asyncio.timeout(within):
            bus = await Bus.open(settings)
            try:
                await _stop_all(bus, say)
            finally:
                await bus.close()
    except (TimeoutError, MLHubError) as error:
        say(f"  not every workspace could be stopped in time ({error or 'no answer'})")
        return False
    return True


async def _stop_all(bus: Bus, say: Callable[[str], None]) -> None:
    table = bus.start_table(bus.workspaces)
    await table.synced(_OPEN)
    told: dict[str, int] = {}
    shown = quiet = 0
    # A spawn asked for a moment ago has no record yet: one look that finds nothing is not enough.
    while quiet < 2:
        for record in table.values():
            if record.phase.is_active and told.get(record.name, 0) <= record.generation:
                told[record.name] = await _tell(bus, record, told.get(record.name, 0))
        busy = _busy(table)
        if busy and busy != shown:
            say(f"  stopping {plural(busy, 'workspace')} ...")
        shown, quiet = busy, 0 if busy else quiet + 1
        await asyncio.sleep(_LOOK)


def _busy(table: Table[WorkspaceRecord]) -> int:
    return sum(record.phase.is_active or record.phase is Phase.STOPPING for record in table.values())


async def _tell(bus: Bus, record: WorkspaceRecord, last: int) -> int:
    generation = next_generation(microseconds(utc_now()), max(record.generation, last))
    command = StopWorkspace(
        workspace=record.workspace, generation=generation, reason=Reason.SHUTDOWN, requester=REQUESTER
    )
    await bus.send(command, pool=record.pool, node=record.node)
    return generation
