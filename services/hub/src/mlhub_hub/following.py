"""Waits for the end of a spawn, by the worker's record."""

from datetime import timedelta

import structlog

from mlhub_hub.context import HubContext
from mlhub_shared.bus import Entry
from mlhub_shared.contracts.commands import Command
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import Phase, Wanted, WorkspaceRecord
from mlhub_shared.errors import MLHubError

log = structlog.get_logger(__name__)

SECOND_LOOK = timedelta(seconds=20)
"""How long the record may say nothing before we see whether the command is still there."""

_DECIDED = frozenset({Phase.READY, Phase.FAILED, Phase.STOPPED})


async def follow(
    context: HubContext, workspace: WorkspaceId, generation: int, command: Command | None = None
) -> WorkspaceRecord | None:
    """The record that decides the spawn of this generation, or a newer one; None: nothing is left of it.

    `command` is sent again should the bus have lost its store.
    """
    watcher = _Watcher(generation)
    while True:
        try:
            entry = await context.workspaces.wait(workspace.name, watcher.is_decided, timeout=SECOND_LOOK)
        except TimeoutError:
            if await _is_lost(context, workspace, generation, command):
                return context.workspaces.value(workspace.name)
        else:
            return entry.value if entry else None


class _Watcher:
    def __init__(self, generation: int) -> None:
        self._generation = generation
        self._was_seen = False

    def is_decided(self, entry: Entry[WorkspaceRecord] | None) -> bool:
        if entry is None:
            return self._was_seen
        record = entry.value
        if record.generation < self._generation:
            return False
        self._was_seen = True
        if record.generation > self._generation and record.wanted is not Wanted.RUNNING:
            return True
        return record.phase in _DECIDED


async def _is_lost(context: HubContext, workspace: WorkspaceId, generation: int, command: Command | None) -> bool:
    record = context.workspaces.value(workspace.name)
    if record is not None and record.generation >= generation:
        return False
    try:
        last = await context.commands.last(workspace)
        if last is None and not context.may_come_back(workspace):
            if command is None:
                return True
            log.warning("spawn.sent_again", workspace=workspace.name)
            await context.commands.repeat(command)
            return False
    except MLHubError:
        return False
    return last is not None and last.generation > generation and last.wanted is not Wanted.RUNNING
