"""Waits for the end of a spawn, by the worker's record."""

from datetime import timedelta

from mlhub_hub.context import HubContext
from mlhub_shared.bus import Entry
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import Phase, Wanted, WorkspaceRecord
from mlhub_shared.errors import MLHubError

SECOND_LOOK = timedelta(seconds=5)
"""How long the records may say nothing of a spawn before we see whether its command is still there."""

_DECIDED = frozenset({Phase.READY, Phase.FAILED, Phase.STOPPED})


async def follow(context: HubContext, workspace: WorkspaceId, generation: int) -> WorkspaceRecord | None:
    """The record that decides the spawn of this generation, or a newer one; None: nothing is left of it."""

    def is_decided(entry: Entry[WorkspaceRecord] | None) -> bool:
        if entry is None or entry.value.generation < generation:
            return False
        overtaken = entry.value.generation > generation and entry.value.wanted is not Wanted.RUNNING
        return overtaken or entry.value.phase in _DECIDED

    while True:
        try:
            entry = await context.workspaces.wait(workspace.name, is_decided, timeout=SECOND_LOOK)
        except TimeoutError:
            if await _is_gone(context, workspace, generation):
                return None
        else:
            return entry.value if entry else None


async def _is_gone(context: HubContext, workspace: WorkspaceId, generation: int) -> bool:
    record = context.workspaces.value(workspace.name)
    if record is not None and record.generation >= generation:
        return False
    try:
        last = await context.commands.last(workspace)
    except MLHubError:
        return False
    if last is None:
        return not context.may_come_back(workspace)
    return last.generation > generation and last.wanted is not Wanted.RUNNING
