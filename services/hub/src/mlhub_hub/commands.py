"""What the hub asks of the workers: generations that only grow, and wishes that are not lost while the bus is away."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from mlhub_shared.bus import Bus, Table
from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.bus.connection import PATIENCE
from mlhub_shared.contracts.commands import Command, next_generation
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import Phase, Wanted, WorkspaceRecord
from mlhub_shared.errors import Conflict, Temporary
from mlhub_shared.runtime.clock import Clock, microseconds

log = structlog.get_logger(__name__)

Build = Callable[[int], Awaitable[Command]]
"""Makes the command of a generation, and whatever must be there before it is sent."""

_ATTEMPTS = 5
"""How often somebody else may be first before we give up."""


def fold(record: WorkspaceRecord | None, command: Command | None) -> int | None:
    """What JupyterHub is told of a workspace: None while it runs or is about to, else an exit status.

    A spawn command newer than the record is one that no worker has seen yet.
    """
    if command is not None and command.wanted is Wanted.RUNNING and _is_newer(command, record):
        return None
    if record is None:
        return 0
    if record.phase.is_active:
        return None
    return 1 if record.phase is Phase.FAILED else 0


def _is_newer(command: Command, record: WorkspaceRecord | None) -> bool:
    return record is None or command.generation > record.generation


class Commands:
    """Sends commands; the later wish always has the higher generation."""

    def __init__(self, bus: Bus, workspaces: Table[WorkspaceRecord], *, pool: str, clock: Clock) -> None:
        self._bus, self._workspaces = bus, workspaces
        self._pool, self._clock = pool, clock
        self._given: dict[str, int] = {}
        self._sending: dict[str, Command] = {}

    async def last(self, workspace: WorkspaceId, *, patience: timedelta = PATIENCE) -> Command | None:
        """The newest command of a workspace, also one whose sending was cut off; BusUnavailable without the bus."""
        pool, node = self._place(workspace)
        found = await self._bus.last_command(pool, workspace.name, node, patience=patience)
        known = [command for command in (found[0] if found else None, self._sending.get(workspace.name)) if command]
        return max(known, key=lambda command: command.generation, default=None)

    async def issue(self, workspace: WorkspaceId, build: Build) -> Command:
        """Send what `build` makes; BusUnavailable without the bus, Conflict if a newer wish overtook this one."""
        return await self._issue(workspace, self._next(workspace), build)

    async def deliver(self, workspace: WorkspaceId, build: Build) -> None:
        """Like `issue`, but keeps trying until the bus takes it or a newer wish makes it pointless."""
        generation, backoff = self._next(workspace), Backoff(first=0.2, most=10)
        while True:
            try:
                await self._issue(workspace, generation, build)
            except Conflict:
                log.info("command.overtaken", workspace=workspace.name)
            except Temporary as error:
                log.warning("command.waits_for_bus", workspace=workspace.name, error=str(error))
                await backoff.sleep()
                continue
            return

    async def _issue(self, workspace: WorkspaceId, generation: int, build: Build) -> Command:
        for _ in range(_ATTEMPTS):
            if self._given[workspace.name] > generation:
                break
            pool, node = self._place(workspace)
            # Together: of the way from a request to its command, nearly all is waiting for the bus.
            command, found = await asyncio.gather(
                build(generation), self._bus.look_before_sending(workspace.name, pool=pool, node=node)
            )
            self._sending[workspace.name] = command
            sent = await self._bus.send(command, pool=pool, node=node, found=found)
            # Not in a `finally`: when it was cut off, the command may be on its way all the same.
            if self._sending.get(workspace.name) is command:
                del self._sending[workspace.name]
            if sent:
                return command
            last = await self.last(workspace)
            generation = self._next(workspace, above=last.generation if last else 0)
        raise Conflict(f"something newer was asked of {workspace}")

    def _next(self, workspace: WorkspaceId, *, above: int = 0) -> int:
        record = self._workspaces.value(workspace.name)
        known = max(above, self._given.get(workspace.name, 0), record.generation if record else 0)
        generation = next_generation(microseconds(self._clock()), known)
        self._given[workspace.name] = generation
        return generation

    def _place(self, workspace: WorkspaceId) -> tuple[str, str | None]:
        record = self._workspaces.value(workspace.name)
        return (record.pool, record.node) if record else (self._pool, None)
