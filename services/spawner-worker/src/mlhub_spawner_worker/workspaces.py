"""The workspaces of one worker: commands in, records changed, a driver kept for each record that asks for something."""

import asyncio
import contextlib
from collections.abc import Set
from datetime import timedelta

import structlog

from mlhub_shared.bus import Bus, Delivery, Table
from mlhub_shared.contracts.commands import Command, DeleteWorkspace, SpawnWorkspace
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.policy import OptionsError, check_spec, check_totals
from mlhub_shared.contracts.workspace import Phase, Reason, WorkspaceRecord
from mlhub_shared.errors import Permanent
from mlhub_shared.tasks import end_tasks
from mlhub_spawner_worker import lifecycle, metrics
from mlhub_spawner_worker.driver import Driver, Tools, forget_command, forget_secrets
from mlhub_spawner_worker.lifecycle import Due, Forget, HandOn, Ignored, Outcome, Place, Write
from mlhub_spawner_worker.line import Line
from mlhub_spawner_worker.nodes import Nodes
from mlhub_spawner_worker.placement import Need, check_possible
from mlhub_spawner_worker.records import RecordStore
from mlhub_spawner_worker.siblings import Siblings
from mlhub_spawner_worker.telling import SELF

log = structlog.get_logger(__name__)

_PATIENCE = timedelta(seconds=5)
"""For the drivers to stop acting when the worker ends."""


class Workspaces:
    """Decides; the drivers act. Nothing is kept here that the records do not tell."""

    def __init__(
        self, tools: Tools, table: Table[WorkspaceRecord], nodes: Nodes, siblings: Siblings, *, place: Place
    ) -> None:
        self._tools, self._table, self._nodes, self._place = tools, table, nodes, place
        self._siblings = siblings
        self._bus: Bus = tools.bus
        self._store: RecordStore = tools.store
        self.line = Line(tools, nodes, siblings, place)
        self._drivers: dict[str, tuple[Driver, asyncio.Task[None]]] = {}
        self._is_ending = False
        self._store.on_change(self._on_change)

    # What comes from the bus

    async def handle(self, command: Command, delivery: Delivery) -> None:
        """Follow a command: change the record, and the rest follows from it."""
        name = command.workspace.name
        if command.workspace.hub != self._bus.subjects.hub:
            raise Permanent(f"this is a workspace of the deployment {command.workspace.hub}")
        if not await self._is_known(name) and not await self._is_last(command):
            # It was overtaken, and what overtook it is over already: taken up now it would bring back the dead.
            metrics.COMMANDS.labels(kind=command.kind, outcome="Overtaken").inc()
            return
        outcome, record = await self._apply(command, delivery.sequence, self._place)
        metrics.COMMANDS.labels(kind=command.kind, outcome=type(outcome).__name__).inc()
        match outcome:
            case HandOn(pool, node):
                await self._bus.send(command, pool=pool, node=node)
            case Forget():
                await self._forget(command)
            case Ignored(why):
                log.info("command.ignored", why=why)
                if delivery.attempt > 1 and record is not None:
                    await self._store.ensure_told(record)
            case Write():
                log.info("command.followed", kind=command.kind, phase=record.phase if record else None)

    async def stand_in(self, command: Command, sequence: int, node: str) -> None:
        """Take in what is asked of a node that is away: it finds it on the record when it is back."""
        record = self._store.known(command.workspace.name)
        if record is not None and record.node == node and command.generation > record.generation:
            await self._apply(command, sequence, Place(self._place.pool, node))

    async def give_up(self, command: Command | None, delivery: Delivery, why: str) -> None:
        """Say on the record and in the audit stream that a command could not be handled."""
        message = f"The worker could not handle this request: {why}"
        await self._bus.emit(
            Event(
                id=f"dead-{delivery.sequence}",
                kind=EventKind.MESSAGE_DEAD,
                workspace=command.workspace if command else None,
                generation=command.generation if command else None,
                message=message,
                requester=command.requester if command else SELF,
                detail={"subject": delivery.subject, "sequence": delivery.sequence},
            )
        )
        if command is None or command.workspace.hub != self._bus.subjects.hub:
            return
        now = self._tools.clock()

        def decide(record: WorkspaceRecord | None) -> WorkspaceRecord | None:
            if isinstance(command, SpawnWorkspace):
                outcome = lifecycle.on_command(record, command, sequence=delivery.sequence, place=self._place, now=now)
                if isinstance(outcome, Write):
                    return lifecycle.refused(outcome.record, Reason.BACKEND, message, now)
            elif record is not None and record.generation < command.generation:
                return record.model_copy(update={"message": message})
            return record

        await self._store.change(command.workspace.name, decide)

    # What runs all the time

    async def follow_records(self) -> None:
        """Take up whatever others write into the records."""
        with self._table.changes() as changes:
            async for names in changes:
                for name in names:
                    self._store.note(name)

    async def aclose(self) -> None:
        """Stop acting; what runs goes on, and its records say what is to be done about it."""
        self._is_ending = True
        if not await end_tasks(*(task for _, task in self._drivers.values()), within=_PATIENCE):
            log.warning("worker.drivers_left")

    async def let_go(self) -> None:
        """Stop acting for what is for another worker to go on with now, whatever was begun."""
        lost = {name: task for name, (_, task) in self._drivers.items() if not self._siblings.owns(name)}
        await end_tasks(*lost.values(), within=_PATIENCE)
        for name in lost:
            self.wake(name)  # It may have come back meanwhile.

    def driven(self) -> Set[str]:
        """The names that this worker acts for now."""
        return self._drivers.keys()

    def wake(self, name: str) -> None:
        """Have a driver look at a record, if it is for this worker to act for it."""
        if self._is_ending or not self._siblings.owns(name):
            return
        if name in self._drivers:
            self._drivers[name][0].poke()
            return
        if lifecycle.due(self._store.known(name), self._place.node) is Due.NOTHING:
            return
        driver = Driver(name, self._tools)
        self._drivers[name] = driver, asyncio.ensure_future(self._drive(name, driver))

    # How it is done

    async def _apply(self, command: Command, sequence: int, place: Place) -> tuple[Outcome, WorkspaceRecord | None]:
        # A stop never waits for who looks for room.
        async with self.line.alone(command.spec) if isinstance(command, SpawnWorkspace) else contextlib.nullcontext():
            return await self._decide(command, sequence, place)

    async def _decide(self, command: Command, sequence: int, place: Place) -> tuple[Outcome, WorkspaceRecord | None]:
        now = self._tools.clock()
        outcome: Outcome = Ignored("nothing was decided")

        def decide(record: WorkspaceRecord | None) -> WorkspaceRecord | None:
            nonlocal outcome
            outcome = lifecycle.on_command(record, command, sequence=sequence, place=place, now=now)
            if not isinstance(outcome, Write):
                return record
            new = outcome.record
            if isinstance(command, SpawnWorkspace) and (problem := self._problem(command, new)) is not None:
                return lifecycle.refused(new, Reason.INVALID, problem, now)
            if place != self._place and new.phase is Phase.STOPPING:
                return lifecycle.postponed(new)
            return self.line.joined(new)

        record = await self._store.change(command.workspace.name, decide)
        return outcome, record

    def _problem(self, command: SpawnWorkspace, record: WorkspaceRecord) -> str | None:
        """Why nobody may have, or no node could ever run, what the record asks for since this command."""
        if not command.base_url.startswith("/") or not command.base_url.endswith("/"):
            return "base_url: must begin and end with a slash"
        nodes, policy = self._nodes.seen(), self._tools.policy
        others = [other.spec for other in self._store.wanted_up(record.workspace.user) if other.name != record.name]
        # Another node may have what this one lacks.
        gpus_allowed = policy.gpus_allowed or any(node.gpus or node.gpus_counted for node in nodes)
        try:
            check_spec(command.spec, policy.model_copy(update={"gpus_allowed": gpus_allowed}))
            check_totals(command.spec, others, policy)
            check_possible(Need.of(record, policy), nodes)
        except OptionsError as error:
            return str(error)
        return None

    async def _is_known(self, name: str) -> bool:
        return self._store.known(name) is not None or await self._store.get(name) is not None

    async def _is_last(self, command: Command) -> bool:
        last = await self._bus.last_command(self._place.pool, command.workspace.name, self._place.node)
        return last is not None and last[0].generation <= command.generation

    async def _forget(self, command: Command) -> None:
        if not isinstance(command, DeleteWorkspace):
            return
        name, up_to = command.workspace.name, command.generation
        await self._tools.backend.stop(name, grace=self._tools.times.grace, up_to=up_to)
        await self._tools.backend.erase(name, up_to=up_to)
        await forget_secrets(self._bus, name, up_to=up_to)
        await self._bus.emit(
            Event(
                id=f"deleted-{command.id}",
                kind=EventKind.WORKSPACE_DELETED,
                workspace=command.workspace,
                generation=command.generation,
                message="Deleted; there was nothing left of it",
                requester=command.requester,
                correlation_id=command.correlation_id,
            )
        )
        for node in (None, self._place.node):
            await forget_command(self._bus, self._place.pool, name, node, up_to=up_to)

    def _on_change(self, name: str) -> None:
        self.line.look()
        self.wake(name)

    async def _drive(self, name: str, driver: Driver) -> None:
        try:
            await driver.run()
        finally:
            del self._drivers[name]
        if driver.is_poked:
            self.wake(name)
