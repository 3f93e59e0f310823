"""Getting a workspace to run while somebody waits for it, and telling them how it goes."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import structlog

from mlhub_shared.bus import Changes, Table
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import FOR_ROOM, Phase, WorkspaceRecord, queue_positions
from mlhub_shared.errors import Permanent, Temporary
from mlhub_ssh_gateway.hub_api import HubApi

log = structlog.get_logger(__name__)

Tell = Callable[[str], None]
"""Takes a sentence for whoever waits."""

Barred = Callable[[], str | None]
"""Says, in a sentence, why whoever waits may not start it now; None if he may."""

_TRIES = 5
_PAUSE = 1.0
"""Seconds before the hub is asked again, times the number of the try."""


class Starter:
    """Starts what is stopped and waits for what is on its way."""

    def __init__(self, records: Table[WorkspaceRecord], api: HubApi, *, enabled: bool, timeout: timedelta) -> None:
        """Without `enabled` it only waits for what somebody else started; `timeout` bounds all but waiting in line."""
        self._records, self._api, self._enabled, self._timeout = records, api, enabled, timeout

    async def ready(self, workspace: WorkspaceId, tell: Tell, barred: Barred) -> WorkspaceRecord:
        """The record of the workspace once it is ready; Permanent or Temporary, in a sentence, if it won't be."""
        record = self._records.value(workspace.name)
        if record is not None and record.phase is Phase.READY:
            return record
        try:
            async with asyncio.timeout(self._timeout.total_seconds()) as bound:
                return await self._start(workspace, tell, barred, bound)
        except TimeoutError:
            seconds = f"{self._timeout.total_seconds():.0f} s"
            raise Temporary(
                f"workspace {workspace.address} was not ready within {seconds}; it is still tried"
            ) from None

    async def _start(
        self, workspace: WorkspaceId, tell: Tell, barred: Barred, bound: asyncio.Timeout
    ) -> WorkspaceRecord:
        began = asyncio.get_running_loop().time()
        with self._records.changes() as changes:
            record = await self._out_of_stopping(workspace, changes, tell)
            if record is not None and record.phase.is_active:
                after, asking = record.generation - 1, None
                if record.phase is not Phase.READY:
                    tell(f"Workspace {workspace.address} is on its way ...")
            else:
                await self._check(workspace, record, barred)
                after = record.generation if record else 0
                tell(f"Starting workspace {workspace.address} ...")
                asking = asyncio.ensure_future(self._ask(workspace))
            try:
                record = await self._follow(workspace, changes, asking, after=after, tell=tell, bound=bound)
            finally:
                if asking is not None:
                    asking.cancel()
                    await asyncio.gather(asking, return_exceptions=True)
        tell(f"... ready in {asyncio.get_running_loop().time() - began:.0f} s")
        return record

    async def _out_of_stopping(self, workspace: WorkspaceId, changes: Changes, tell: Tell) -> WorkspaceRecord | None:
        record = self._records.value(workspace.name)
        if record is not None and record.phase is Phase.STOPPING:
            tell(f"Workspace {workspace.address} is stopping ...")
        while record is not None and record.phase is Phase.STOPPING:
            await anext(changes)
            record = self._records.value(workspace.name)
        return record

    async def _check(self, workspace: WorkspaceId, record: WorkspaceRecord | None, barred: Barred) -> None:
        if not self._enabled:
            raise Permanent(f"workspace {workspace.address} is not running; start it on its page")
        if (reason := barred()) is not None:
            raise Permanent(reason)
        # The hub makes a named server that it is asked to start and does not know: a slip of the pen would make one.
        if record is None and workspace.server and not await self._api.exists(workspace):
            raise Permanent(f"there is no workspace {workspace.address}")

    async def _ask(self, workspace: WorkspaceId) -> None:
        """Ask the hub for a start until it has taken it; what comes of it is read from the record."""
        problem: Temporary | None = None
        for number in range(1, _TRIES + 1):
            try:
                if await self._api.start(workspace):
                    return
                problem = None
            except Temporary as error:
                problem = error
            await asyncio.sleep(_PAUSE * number)
            if self._is_active(workspace):
                return
        if problem is not None:
            raise problem

    def _is_active(self, workspace: WorkspaceId) -> bool:
        record = self._records.value(workspace.name)
        return record is not None and record.phase.is_active

    async def _follow(
        self,
        workspace: WorkspaceId,
        changes: Changes,
        asking: asyncio.Task[None] | None,
        *,
        after: int,
        tell: Tell,
        bound: asyncio.Timeout,
    ) -> WorkspaceRecord:
        told = ""
        while True:
            record = self._records.value(workspace.name)
            if record is not None and record.generation > after:
                if record.phase is Phase.READY:
                    return record
                if not record.phase.is_active:
                    raise Permanent(_failure(workspace, record))
                self._count(record, bound)
                if (sentence := _progress(record, self._records)) != told:
                    tell(sentence)
                    told = sentence
            await _next(changes, asking)
            if asking is not None and asking.done():
                asking.result()
                asking = None

    def _count(self, record: WorkspaceRecord, bound: asyncio.Timeout) -> None:
        """Waiting in line counts against no time-out."""
        if record.phase is Phase.QUEUED:
            bound.reschedule(None)
        elif bound.when() is None:
            bound.reschedule(asyncio.get_running_loop().time() + self._timeout.total_seconds())


async def _next(changes: Changes, asking: asyncio.Task[None] | None) -> None:
    """Wait for a change of the records, or for the end of asking."""
    change = asyncio.ensure_future(anext(changes))
    try:
        await asyncio.wait({change, asking} if asking else {change}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        change.cancel()


def _progress(record: WorkspaceRecord, records: Table[WorkspaceRecord]) -> str:
    if record.phase is Phase.QUEUED:
        position = queue_positions(records.values()).get(record.name, 1)
        why = "" if record.message in ("", FOR_ROOM) else f". {record.message}"
        return f"... queued, {_ordinal(position)} in line{why}"
    return f"... {record.message[:1].lower()}{record.message[1:]}" if record.message else f"... {record.phase}"


def _failure(workspace: WorkspaceId, record: WorkspaceRecord) -> str:
    reason = record.message or record.reason or record.phase
    return f"workspace {workspace.address} did not start: {reason}"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
