"""The workspaces of one worker: commands in, records changed, a driver kept for each record that asks for something."""

import asyncio
import contextlib
from datetime import timedelta

import structlog

from mlhub_shared.bus import Bus, Delivery, Table
from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.contracts.commands import Command, DeleteWorkspace, SpawnWorkspace
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.policy import OptionsError, Policy, check_spec
from mlhub_shared.contracts.workspace import Phase, Reason, WorkspaceRecord
from mlhub_shared.errors import MLHubError, Permanent
from mlhub_shared.tasks import end_tasks
from mlhub_spawner_worker import lifecycle, metrics
from mlhub_spawner_worker.capacity import next_in_line, running
from mlhub_spawner_worker.driver import Driver, Tools, forget_commands, forget_secrets
from mlhub_spawner_worker.lifecycle import Due, Forget, HandOn, Ignored, Outcome, Place, Write
from mlhub_spawner_worker.records import RecordStore
from mlhub_spawner_worker.telling import SELF

log = structlog.get_logger(__name__)

_LOOK_AGAIN = 15
"""Seconds after which the line is looked at though nothing seems to have changed."""

_PATIENCE = timedelta(seconds=5)
"""For the drivers to stop acting when the worker ends."""

_TABLE_LAGS = 0.02
"""Seconds for the watch to bring what another worker wrote."""


class Workspaces:
    """Decides; the drivers act. Nothing is kept here that the records do not tell."""

    def __init__(
        self, tools: Tools, table: Table[WorkspaceRecord], *, place: Place, capacity: int | None, policy: Policy
    ) -> None:
        self._tools, self._table = tools, table
        self._bus: Bus = tools.bus
        self._store: RecordStore = tools.store
        self._place, self._capacity, self._policy = place, capacity, policy
        self._room = asyncio.Lock()
        self._line = asyncio.Event()
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
        # One spawn at a time looks for room, where there is an end to it; a stop never waits for that.
        is_scarce = self._capacity is not None and isinstance(command, SpawnWorkspace)
        async with self._room if is_scarce else contextlib.nullcontext():
            outcome, record = await self._apply(command, delivery.sequence)
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
                    self._on_change(name)

    async def serve_line(self) -> None:
        """Claim what waits in line whenever there is room."""
        backoff = Backoff()
        while True:
            self._line.clear()
            try:
                while await self._claim_next():
                    backoff.reset()
            except MLHubError as error:
                log.warning("line.not_served", error=str(error))
                await backoff.sleep()
                continue
            self._count()
            try:
                await asyncio.wait_for(self._line.wait(), _LOOK_AGAIN)
            except TimeoutError:
                continue

    async def aclose(self) -> None:
        """Stop acting; what runs goes on, and its records say what is to be done about it."""
        self._is_ending = True
        if not await end_tasks(*(task for _, task in self._drivers.values()), within=_PATIENCE):
            log.warning("worker.drivers_left")

    def wake(self, name: str) -> None:
        """Have a driver look at a record."""
        if self._is_ending:
            return
        if name in self._drivers:
            self._drivers[name][0].poke()
            return
        if lifecycle.due(self._store.known(name), self._place.node) is Due.NOTHING:
            return
        driver = Driver(name, self._tools)
        self._drivers[name] = driver, asyncio.ensure_future(self._drive(name, driver))

    @property
    def running(self) -> int:
        """How many workspaces take room here."""
        return running(self._store.busy(), self._place.node)

    # How it is done

    async def _apply(self, command: Command, sequence: int) -> tuple[Outcome, WorkspaceRecord | None]:
        now = self._tools.clock()
        problem = self._problem(command)
        outcome: Outcome = Ignored("nothing was decided")

        def decide(record: WorkspaceRecord | None) -> WorkspaceRecord | None:
            nonlocal outcome
            outcome = lifecycle.on_command(record, command, sequence=sequence, place=self._place, now=now)
            if not isinstance(outcome, Write):
                return record
            if problem is not None:
                return lifecycle.refused(outcome.record, Reason.INVALID, problem, now)
            return self._claim_if_room(outcome.record)

        record = await self._store.change(command.workspace.name, decide)
        return outcome, record

    def _claim_if_room(self, record: WorkspaceRecord) -> WorkspaceRecord:
        others = [other for other in self._store.busy() if other.name != record.name]
        first = next_in_line([*others, record], place=self._place, capacity=self._capacity)
        return lifecycle.claimed(record, self._place.node, self._tools.clock()) if first is record else record

    async def _claim_next(self) -> bool:
        async with self._room:
            first = next_in_line(self._store.busy(), place=self._place, capacity=self._capacity)
            if first is None:
                return False
            now = self._tools.clock()

            def decide(record: WorkspaceRecord | None) -> WorkspaceRecord | None:
                return lifecycle.claimed(record, self._place.node, now) if record is not None else None

            record = await self._store.change(first.name, decide)
        if record is None or record.node != self._place.node:
            # Another worker was quicker; this one's table learns of it in a moment.
            await asyncio.sleep(_TABLE_LAGS)
        return True

    def _problem(self, command: Command) -> str | None:
        if not isinstance(command, SpawnWorkspace):
            return None
        if not command.base_url.startswith("/") or not command.base_url.endswith("/"):
            return "base_url: must begin and end with a slash"
        try:
            check_spec(command.spec, self._policy)
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
        name = command.workspace.name
        await self._tools.backend.stop(name, grace=self._tools.times.grace)
        await self._tools.backend.erase(name)
        await forget_secrets(self._bus, name, up_to=command.generation)
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
        await forget_commands(self._bus, self._place.pool, name, self._place.node, command.generation)

    def _on_change(self, name: str) -> None:
        self._line.set()
        self.wake(name)

    async def _drive(self, name: str, driver: Driver) -> None:
        try:
            await driver.run()
        finally:
            del self._drivers[name]
        if driver.is_poked:
            self.wake(name)

    def _count(self) -> None:
        records = self._store.busy()
        metrics.RUNNING.set(running(records, self._place.node))
        waiting = (record for record in records if record.phase is Phase.QUEUED and record.pool == self._place.pool)
        metrics.QUEUED.set(sum(1 for _ in waiting))
