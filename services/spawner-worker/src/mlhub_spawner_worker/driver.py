"""What one workspace's record asks for, done step by step until nothing is due any more."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar

import structlog
from pydantic import ValidationError

from mlhub_shared.bus import Bus
from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.contracts.commands import decode_command
from mlhub_shared.contracts.policy import Policy
from mlhub_shared.contracts.workspace import Phase, Reason, Wanted, WorkspaceRecord, WorkspaceSecrets
from mlhub_shared.errors import BusUnavailable, MLHubError, NotFound, Permanent, Temporary
from mlhub_shared.runtime.clock import Clock
from mlhub_shared.tasks import end_tasks
from mlhub_spawner_worker import lifecycle, metrics, sentences
from mlhub_spawner_worker.backends.base import Backend, BackendError, Job
from mlhub_spawner_worker.lifecycle import Answered, DiedWithHost, Due, Exited, Failed, Gone, Observation, Started
from mlhub_spawner_worker.placement import profile_of
from mlhub_spawner_worker.probe import FIRST_DELAY, MOST_DELAY, Probe
from mlhub_spawner_worker.records import RecordStore
from mlhub_spawner_worker.telling import Standing, Teller, progress_event

log = structlog.get_logger(__name__)

T = TypeVar("T")

_SECRETS_RETRY = 0.1
"""Seconds between two looks for secrets that are not there yet."""


_CLEARED_WITHIN = timedelta(seconds=5)
"""For what a dead workspace has left behind; if that takes longer, people learn of the death first."""


@dataclass(frozen=True)
class Times:
    """How long each step may take."""

    prepare: timedelta
    start: timedelta
    grace: timedelta
    stop: timedelta
    secrets: timedelta


@dataclass(frozen=True)
class Tools:
    """What all drivers of a worker share."""

    bus: Bus
    store: RecordStore
    teller: Teller
    backend: Backend
    probe: Probe
    clock: Clock
    node: str
    times: Times
    policy: Policy

    def patience(self, record: WorkspaceRecord) -> timedelta:
        """From the start of this workspace to its first answer: its profile knows best."""
        profile = profile_of(record.spec, self.policy)
        own = profile.start_timeout if profile else None
        return self.times.start if own is None else timedelta(seconds=own)


class Driver:
    """Follows one record. The only one on its node that tells the backend what to do with that workspace."""

    def __init__(self, name: str, tools: Tools) -> None:
        self._name, self._tools = name, tools
        self._store, self._backend = tools.store, tools.backend
        self._poked = asyncio.Event()
        self._remembered: WorkspaceRecord | None = None
        self._said = ""
        self._steps: dict[Due, Callable[[WorkspaceRecord], Coroutine[None, None, Observation]]] = {
            Due.START: self._start,
            Due.PROBE: self._probe,
            Due.WATCH: self._watch,
            Due.STOP: self._stop,
        }

    def poke(self) -> None:
        """Look at the record again: it may have changed."""
        self._poked.set()

    @property
    def is_poked(self) -> bool:
        """Somebody wants the record looked at again."""
        return self._poked.is_set()

    async def run(self) -> None:
        """Work until nothing is due, or until cancelled; what fails is tried again, ever more slowly."""
        backoff = Backoff(first=0.1, most=5)
        while True:
            self._poked.clear()
            try:
                record = await self._store.get(self._name)
                due = lifecycle.due(record, self._tools.node)
                await self._keep_beside(record)
                if record is None or due is Due.NOTHING:
                    return
                await self._step(record, due)
            except Temporary as error:
                log.info("workspace.retry", workspace=self._name, why=str(error), cause=repr(error.__cause__))
                await backoff.sleep(at_least=error.delay)
            except Exception:
                log.exception("workspace.step_failed", workspace=self._name)
                await backoff.sleep()
            else:
                backoff.reset()

    async def _step(self, record: WorkspaceRecord, due: Due) -> None:
        seen = await self._unless_changed(record, self._steps[due](record))
        if seen is not None:
            await self._observe(record, seen)

    async def _observe(self, record: WorkspaceRecord, seen: Observation) -> None:
        now = self._tools.clock()
        new = await self._store.change(self._name, lambda current: lifecycle.observe(current, seen, of=record, now=now))
        metrics.PHASES.labels(phase=record.phase).observe(max(0.0, (now - record.phase_since).total_seconds()))
        match seen:
            case Answered():
                metrics.SPAWNS.labels(result="ready").inc()
            case Failed():
                metrics.SPAWNS.labels(result=seen.reason).inc()
            case Exited() if record.phase is Phase.STARTING:
                metrics.SPAWNS.labels(result=seen.reason).inc()
            case _:
                pass
        log.info(
            "workspace.moved",
            workspace=self._name,
            seen=type(seen).__name__,
            phase=new.phase if new else "deleted",
            correlation_id=record.correlation_id,
        )
        if new is not None and new.node is None:
            # It may start anywhere now; a command that lay about here might bring it back to life one day.
            await forget_command(self._tools.bus, record.pool, self._name, record.node, up_to=new.generation)

    async def _unless_changed(
        self, record: WorkspaceRecord, work: Coroutine[None, None, Observation]
    ) -> Observation | None:
        """What the work saw; None as soon as the record asks for something else."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                poked = asyncio.ensure_future(self._poked.wait())
                try:
                    await asyncio.wait({task, poked}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    poked.cancel()
                if task.done():
                    break
                self._poked.clear()
                current = self._store.known(self._name)
                if not lifecycle.same_work(current, record):
                    return None
                await self._keep_beside(current)
            return await task
        finally:
            await end_tasks(task)

    async def _keep_beside(self, record: WorkspaceRecord | None) -> None:
        if record is not None and record.node == self._tools.node and record != self._remembered:
            await self._backend.remember(record)
            self._remembered = record

    # The steps

    async def _start(self, record: WorkspaceRecord) -> Observation:
        times = self._tools.times
        try:
            job = Job(record, await self._secrets(record))
            await self._prepare(job)
            await self._report(record, lifecycle.LAUNCHING, "Starting")
            running = await _within(self._tools.patience(record), self._backend.start(job), "starting")
        except NotFound as error:
            return Failed(Reason.SECRETS_LOST, str(error))
        except _TookTooLong as error:
            return Failed(Reason.TIMEOUT, str(error))
        except BusUnavailable:
            raise
        except Temporary as error:
            if self._tools.clock() - record.phase_since < times.prepare:
                await self._say_why(record, str(error))
                raise
            return Failed(Reason.TIMEOUT, str(error))
        except BackendError as error:
            return Failed(error.reason, str(error))
        except Permanent as error:
            return Failed(Reason.BACKEND, str(error))
        except Exception:
            log.exception("workspace.start_failed", workspace=self._name)
            return Failed(Reason.BACKEND, "The worker failed to start it; its log says why")
        return Started(running.endpoint, running.boot, running.image_id)

    async def _prepare(self, job: Job) -> None:
        last, standing = "", Standing(partial(self._put, job.record))
        telling = asyncio.ensure_future(standing.run())

        async def report(percent: int, message: str) -> None:
            nonlocal last
            last = message
            standing.say(message)
            span = lifecycle.LAUNCHING - lifecycle.CLAIMED
            await self._report(job.record, lifecycle.CLAIMED + span * percent // 100, message)

        try:
            await _within(self._tools.times.prepare, self._backend.prepare(job, report), "preparing")
        except _TookTooLong as error:
            raise _TookTooLong(f"{error}; last: {last}" if last else str(error)) from None
        finally:
            await end_tasks(telling)

    async def _probe(self, record: WorkspaceRecord) -> Observation:
        """Wait for its first answer, its death, or the end of patience, whatever comes first."""
        watching = asyncio.ensure_future(self._death(record))
        answering = asyncio.ensure_future(self._answers(record))
        patience = self._tools.patience(record)
        try:
            await asyncio.wait(
                {watching, answering}, timeout=patience.total_seconds(), return_when=asyncio.FIRST_COMPLETED
            )
            if watching.done():
                return await watching
            if answering.done():
                await answering
                return Answered()
            return Failed(Reason.TIMEOUT, sentences.silent(self._port(record), patience))
        finally:
            await end_tasks(watching, answering)

    def _port(self, record: WorkspaceRecord) -> int | None:
        """Where it should listen, as its owner knows it: in the container, not where the node publishes it."""
        profile = profile_of(record.spec, self._tools.policy)
        if profile is not None:
            return profile.port
        return record.endpoint.port if record.endpoint else None

    async def _answers(self, record: WorkspaceRecord) -> None:
        delay = FIRST_DELAY
        while not await self._tools.probe(record):
            await asyncio.sleep(delay.total_seconds())
            delay = min(delay * 1.5, MOST_DELAY)

    async def _watch(self, record: WorkspaceRecord) -> Observation:
        """Wait for its death, and say meanwhile what ails it."""
        telling = asyncio.ensure_future(self._tell_troubles(record))
        try:
            return await self._death(record)
        finally:
            await end_tasks(telling)

    async def _tell_troubles(self, record: WorkspaceRecord) -> None:
        known, backoff = record.message, Backoff(first=0.2, most=10)
        while True:
            try:
                known = await self._backend.trouble(self._name, known)
                log.warning("workspace.trouble", workspace=self._name, trouble=known or "over")
                await self._store.change(self._name, partial(_saying, known, record))
            except MLHubError as error:
                log.warning("workspace.trouble_not_told", workspace=self._name, why=str(error))
                await backoff.sleep()
            else:
                backoff.reset()

    async def _death(self, record: WorkspaceRecord) -> Observation:
        """Wait for it, and end what it left behind before anybody hears of it, but not at any price."""
        exited, is_left = await self._backend.wait(self._name), False
        try:
            clearing = self._backend.stop(self._name, grace=timedelta(0), up_to=record.generation)
            await _within(_CLEARED_WITHIN, clearing, "clearing away")
        except MLHubError as error:
            log.warning("workspace.left_behind", workspace=self._name, why=str(error))
            is_left = True
        if exited.with_host or (exited.code is None and record.boot != self._backend.boot):
            return DiedWithHost()
        return Exited(exited.code, exited.log_tail, exited.again, exited.reason, is_left, exited.message)

    async def _stop(self, record: WorkspaceRecord) -> Observation:
        try:
            return await self._end(record)
        except BusUnavailable:
            raise
        except (Temporary, Permanent) as error:
            # It is owed, however long that takes; people see what keeps it.
            if record.reason not in lifecycle.FAILURES:
                await self._put(record, f"{error}; it is tried again")
            if isinstance(error, Temporary):
                raise
            raise Temporary(str(error)) from error

    async def _end(self, record: WorkspaceRecord) -> Observation:
        times, up_to = self._tools.times, _to_end(record)
        stopping = self._backend.stop(self._name, grace=times.grace, up_to=up_to)
        tail = await _within(times.stop, stopping, "stopping")
        if record.erasing:
            await self._backend.erase(self._name, up_to=up_to)
            current = await self._store.get(self._name)
            if current is not None and current.wanted is Wanted.DELETED:
                await forget_secrets(self._tools.bus, self._name, up_to=current.generation)
                for place in {None, current.node}:
                    await forget_command(self._tools.bus, current.pool, self._name, place, up_to=current.generation)
        return Gone(tail)

    async def _secrets(self, record: WorkspaceRecord) -> WorkspaceSecrets:
        deadline = time.monotonic() + self._tools.times.secrets.total_seconds()
        while True:
            entry = await self._tools.bus.secrets.get(self._name)
            if entry is not None and entry.value.generation >= record.generation:
                return entry.value
            if time.monotonic() > deadline:
                raise NotFound("Its token and secret variables are not there any more. Please start it again.")
            await asyncio.sleep(_SECRETS_RETRY)

    async def _say_why(self, record: WorkspaceRecord, why: str) -> None:
        """Tell once what a start waits for that is tried again and again; on its record too, if it goes on."""
        sentence = f"{why}; it is tried again"
        if why != self._said:
            self._said = why
            await self._report(record, record.progress, sentence)
        elif record.message != sentence:
            await self._put(record, sentence)

    async def _put(self, record: WorkspaceRecord, sentence: str) -> None:
        """Say it on the record, unless that has moved on."""
        try:
            await self._store.change(self._name, partial(_saying, sentence, record))
        except MLHubError as error:
            log.warning("workspace.sentence_not_put", workspace=self._name, why=str(error))

    async def _report(self, record: WorkspaceRecord, percent: int, message: str) -> None:
        self._tools.teller.mention(self._name, progress_event(record, percent, message))


def _to_end(record: WorkspaceRecord) -> int:
    """The newest generation that a stopping workspace may have been started for."""
    # To start again, what is older ends, and nothing of its own generation: another worker may have started that.
    starts_again = record.wanted is Wanted.RUNNING and record.reason is Reason.ASKED
    return record.generation - 1 if starts_again else record.generation


def _saying(sentence: str, of: WorkspaceRecord, record: WorkspaceRecord | None) -> WorkspaceRecord | None:
    is_the_same = record is not None and lifecycle.same_work(record, of)
    return lifecycle.saying(record, of.phase, sentence) if record is not None and is_the_same else record


async def forget_secrets(bus: Bus, name: str, *, up_to: int) -> None:
    """Remove a workspace's secrets, but not those of a start that was asked for since."""
    entry = await bus.secrets.get(name)
    if entry is not None and entry.value.generation <= up_to:
        await bus.secrets.delete(name, last=entry.revision)


async def forget_command(bus: Bus, pool: str, name: str, node: str | None, *, up_to: int) -> None:
    """Remove a workspace's command on its pool's or that node's subject, unless it is of a later generation."""
    subject = bus.subjects.command(pool, name, node)
    raw = await bus.connection.last(bus.subjects.commands, subject)
    if raw is not None and _generation(raw.data) <= up_to:
        await bus.forget_commands(subject, up_to=raw.sequence)


def _generation(data: bytes) -> int:
    try:
        return decode_command(data).generation
    except ValidationError:
        return 0  # Nobody can follow it: it may go with the rest.


class _TookTooLong(Permanent):
    """A step did not end in its time."""


async def _within(limit: timedelta, work: Coroutine[None, None, T], doing: str) -> T:
    try:
        async with asyncio.timeout(limit.total_seconds()) as bound:
            return await work
    except TimeoutError:
        if not bound.expired():
            raise
        raise _TookTooLong(f"{doing.capitalize()} took longer than {limit.total_seconds():g} s") from None
