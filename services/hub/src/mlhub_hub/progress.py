"""What a spawn page shows: the events of this spawn so far and as they come, and the place in line."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from mlhub_hub.context import HubContext
from mlhub_hub.nodes import unreachable
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.services import by_node
from mlhub_shared.contracts.workspace import FOR_ROOM, Phase, WorkspaceRecord, queue_positions
from mlhub_shared.tasks import end_tasks

Progress = dict[str, Any]

_CLOCKS_APART = timedelta(minutes=1)
"""How far the clocks of hub and bus may differ without an event being missed."""

_BETWEEN_LOOKS = 0.2
"""Seconds; a crowd that moves up in line makes one message, not a hundred."""

_EVENTS_FIRST = 1.0
"""Seconds that the place in line waits for the first event."""

_QUEUED_PROGRESS = 5

_WAIT_FOR_GENERATION = 0.05
"""Seconds between two looks whether the spawn has got its generation."""

_ENDS = {
    EventKind.WORKSPACE_READY,
    EventKind.WORKSPACE_FAILED,
    EventKind.WORKSPACE_STOPPED,
    EventKind.WORKSPACE_DELETED,
}
_SHOWN = _ENDS | {
    EventKind.WORKSPACE_REQUESTED,
    EventKind.WORKSPACE_PREPARING,
    EventKind.WORKSPACE_PROGRESSED,
    EventKind.WORKSPACE_STARTING,
    EventKind.WORKSPACE_STOPPING,
    EventKind.WORKSPACE_ADOPTED,
}
# Not WORKSPACE_QUEUED: the place in line says more, and moves.


async def progress_of(
    context: HubContext, workspace: WorkspaceId, generation_of: Callable[[], int]
) -> AsyncGenerator[Progress, None]:
    """JupyterHub's progress messages of a spawn; ends when it is ready or has failed."""
    while (generation := generation_of()) == 0:  # noqa: ASYNC110  (a few milliseconds, before the command is made)
        await asyncio.sleep(_WAIT_FOR_GENERATION)
    messages: asyncio.Queue[Progress | None] = asyncio.Queue()
    begun = asyncio.Event()
    sources = [
        asyncio.ensure_future(_events(context, workspace, generation, messages, begun)),
        asyncio.ensure_future(_places(context, workspace, messages, begun)),
        asyncio.ensure_future(_silences(context, workspace, messages)),
    ]
    try:
        while (message := await messages.get()) is not None:
            yield message
    finally:
        await end_tasks(*sources)


async def _events(
    context: HubContext,
    workspace: WorkspaceId,
    generation: int,
    messages: asyncio.Queue[Progress | None],
    begun: asyncio.Event,
) -> None:
    asked_at = datetime.fromtimestamp(generation / 1_000_000, UTC)
    since = min(asked_at, context.clock()) - _CLOCKS_APART
    async with aclosing(context.bus.replay(workspace.name, since=since)) as events:
        async for event in events:
            if event.kind not in _SHOWN or event.generation is None or event.generation < generation:
                continue
            messages.put_nowait(_shown(event))
            begun.set()
            if event.kind in _ENDS:
                messages.put_nowait(None)


def _shown(event: Event) -> Progress:
    message = event.message or event.kind.removeprefix("workspace-").capitalize()
    shown: Progress = {"message": message, "at": event.at.isoformat()}
    if event.progress is not None:
        shown["progress"] = event.progress
    return shown


async def _places(
    context: HubContext, workspace: WorkspaceId, messages: asyncio.Queue[Progress | None], begun: asyncio.Event
) -> None:
    # What was requested comes before its place in line, unless the bus keeps us waiting for it.
    with suppress(TimeoutError):
        await asyncio.wait_for(begun.wait(), _EVENTS_FIRST)
    said = ""
    with context.workspaces.changes() as changes:
        async for _ in changes:
            line = place_in_line(context, workspace)
            if line is not None and line["message"] != said:
                said = line["message"]
                messages.put_nowait(line)
            await asyncio.sleep(_BETWEEN_LOOKS)


async def _silences(context: HubContext, workspace: WorkspaceId, messages: asyncio.Queue[Progress | None]) -> None:
    with context.nodes.changes() as changes:
        while True:
            record = context.workspaces.value(workspace.name)
            if record is not None and context.nodes.is_unreachable(record):
                messages.put_nowait({"message": unreachable(record), "unreachable": True})
            await anext(changes)


def place_in_line(context: HubContext, workspace: WorkspaceId) -> Progress | None:
    """Where a queued workspace stands; None if it is not queued."""
    record = context.workspaces.value(workspace.name)
    if record is None or record.phase is not Phase.QUEUED:
        return None
    queued = [other for other in context.workspaces.values() if other.phase is Phase.QUEUED]
    position = queue_positions(queued).get(workspace.name)
    if position is None:
        return None
    message = f"Queued: {_ordinal(position)} in line{_because(context, record)}"
    return {"message": message, "progress": _QUEUED_PROGRESS, "position": position}


def _because(context: HubContext, record: WorkspaceRecord) -> str:
    # Of mere room, the number of places says more.
    if record.message not in ("", FOR_ROOM):
        return f". {record.message}"
    workers = [lease for lease in by_node(context.workers.values()).values() if lease.pool == record.pool]
    if not workers:
        return ", no worker is running now"
    capacities = [lease.capacity for lease in workers if lease.capacity is not None]
    if len(capacities) < len(workers):
        return ""
    places = sum(capacities)
    if places == 1:
        return ", the only place is taken"
    return f", all {places} places are taken"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
