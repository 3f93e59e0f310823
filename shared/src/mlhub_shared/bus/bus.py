"""What a service does with the bus."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import ConsumerConfig, DeliverPolicy
from pydantic import BaseModel, ValidationError

from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.bus.bucket import Bucket
from mlhub_shared.bus.connection import OUTAGES, PATIENCE, BusSettings, Connection, Raw
from mlhub_shared.bus.consumer import Consumer, Delivery
from mlhub_shared.bus.provision import provision
from mlhub_shared.bus.table import Table
from mlhub_shared.bus.timers import Timers
from mlhub_shared.contracts.commands import Command, decode_command
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.queries import Failure, Reply
from mlhub_shared.contracts.services import (
    NodeMark,
    OpenSession,
    ProxyActivity,
    ProxyState,
    Route,
    SshKey,
    TlsEntry,
    WorkerLease,
)
from mlhub_shared.contracts.subjects import Subjects
from mlhub_shared.contracts.workspace import WorkspaceRecord, WorkspaceSecrets
from mlhub_shared.errors import BusUnavailable, Conflict, MLHubError, Permanent, Temporary
from mlhub_shared.tasks import end_tasks, stop_if_cancelled

log = structlog.get_logger(__name__)

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
Q = TypeVar("Q", bound=BaseModel)

QUERY = timedelta(seconds=5)
_QUERIES_AT_ONCE = 64


@dataclass(frozen=True)
class Place:
    """Where a command goes, and what lies there."""

    command: Command | None
    sequence: int
    """Of what lies there; 0: nothing."""


class Bus:
    """One service's view of the bus. Tables follow only after `start_table`; everything ends with `close`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.subjects = Subjects(connection.settings.hub)
        self.timers = Timers(connection, self.subjects)
        self._tasks: set[asyncio.Task[None]] = set()
        self.workspaces = Bucket(connection, self.subjects.workspaces, WorkspaceRecord)
        self.workers = Bucket(connection, self.subjects.workers, WorkerLease)
        self.nodes = Bucket(connection, self.subjects.nodes, NodeMark)
        self.routes = Bucket(connection, self.subjects.routes, Route)
        self.proxies = Bucket(connection, self.subjects.proxies, ProxyState)
        self.activity = Bucket(connection, self.subjects.activity, ProxyActivity)
        self.ssh_keys = Bucket(connection, self.subjects.ssh_keys, SshKey)
        self.sessions = Bucket(connection, self.subjects.sessions, OpenSession)
        self.certs = Bucket(connection, self.subjects.certs, TlsEntry)
        self.secrets = Bucket(connection, self.subjects.secrets, WorkspaceSecrets)

    @classmethod
    async def open(cls, settings: BusSettings) -> "Bus":
        """Connect, however long it takes, and make what the deployment needs on the server."""
        bus = cls(await Connection.open(settings))
        await bus._provision()
        bus.run(bus._provision_again())
        return bus

    async def close(self) -> None:
        """End every table and consumer, then the connection, within about 4 s."""
        await end_tasks(*self._tasks, within=timedelta(seconds=2))
        await self.connection.close()

    @property
    def is_connected(self) -> bool:
        """There is a server at the other end now."""
        return self.connection.is_connected

    def run(self, work: Awaitable[None]) -> asyncio.Task[None]:
        """Run something beside all else, until it ends or the bus is closed."""
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def start_table(self, bucket: Bucket[M]) -> Table[M]:
        """Follow a bucket; await the table's `synced` before relying on what is not there."""
        table = Table(bucket)
        self.run(table.run())
        return table

    async def emit(self, event: Event, *, patience: timedelta = PATIENCE) -> None:
        """Keep an event in the audit stream; BusUnavailable when `patience` is over."""
        name = event.workspace.name if event.workspace else None
        subject = self.subjects.event(event.kind, name)
        await self.connection.publish(subject, event.encode(), message_id=event.id, patience=patience)

    async def replay(self, workspace: str, *, since: datetime) -> AsyncGenerator[Event, None]:
        """The events of a workspace since then, and on as they come; ends only when the caller stops iterating."""
        start, policy = ConsumerConfig(opt_start_time=since.astimezone(UTC)), DeliverPolicy.BY_START_TIME
        backoff = Backoff()
        with self.connection.on_reconnect() as reconnected:
            while True:
                reconnected.clear()
                try:
                    subscription = await self.connection.js.subscribe(
                        self.subjects.events_of(workspace),
                        stream=self.subjects.events,
                        ordered_consumer=True,
                        deliver_policy=policy,
                        config=start,
                    )
                except OUTAGES:
                    await backoff.sleep()
                    continue
                try:
                    async for message in _until(reconnected, subscription):
                        backoff.reset()
                        start = ConsumerConfig(opt_start_seq=message.metadata.sequence.stream + 1)
                        policy = DeliverPolicy.BY_START_SEQUENCE
                        if (event := _event(message)) is not None:
                            yield event
                finally:
                    if self.is_connected:
                        await subscription.unsubscribe()

    async def past_events(self, kind: EventKind) -> AsyncGenerator[Event, None]:
        """All events of a kind that concern no workspace, oldest first; BusUnavailable without the bus."""
        subject, sequence = self.subjects.event(kind), 0
        while (raw := await self.connection.following(self.subjects.events, subject, after=sequence)) is not None:
            sequence = raw.sequence
            if (event := _event(raw)) is not None:
                yield event

    async def overhear(self, pool: str, node: str) -> AsyncGenerator[tuple[Command, int], None]:
        """What lies there for another node, the last command of each workspace, and on as they come.

        Nothing is taken away from that node. Ends only when the caller stops iterating; a command may come again.
        """
        backoff = Backoff()
        with self.connection.on_reconnect() as reconnected:
            while True:
                reconnected.clear()
                try:
                    subscription = await self.connection.js.subscribe(
                        self.subjects.commands_of(pool, node),
                        stream=self.subjects.commands,
                        ordered_consumer=True,
                        deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
                    )
                except OUTAGES:
                    await backoff.sleep()
                    continue
                try:
                    async for message in _until(reconnected, subscription):
                        backoff.reset()
                        if (command := _command(message.data)) is not None:
                            yield command, message.metadata.sequence.stream
                finally:
                    if self.is_connected:
                        await subscription.unsubscribe()

    async def last_command(
        self, pool: str, workspace: str, node: str | None = None, *, patience: timedelta = PATIENCE
    ) -> tuple[Command, int] | None:
        """The newest command of a workspace over pool and node subject, with its sequence; None if there is none."""
        subjects = {self.subjects.command(pool, workspace, place) for place in (None, node)}
        found = await asyncio.gather(*(self._command_on(subject, patience) for subject in subjects))
        return max(filter(None, found), key=lambda pair: pair[0].generation, default=None)

    async def look_before_sending(self, workspace: str, *, pool: str, node: str | None = None) -> Place:
        """What `send` will find; only for those who have something else to do meanwhile."""
        raw = await self.connection.last(self.subjects.commands, self.subjects.command(pool, workspace, node))
        return Place(_decoded(raw), raw.sequence if raw else 0)

    async def send(self, command: Command, *, pool: str, node: str | None = None, found: Place | None = None) -> bool:
        """Make this the last command of its workspace; False (and nothing sent) if a newer one is there already.

        Safe to repeat. `node` is the record's; None where the workspace is not placed.
        """
        name = command.workspace.name
        while True:
            place = found or await self.look_before_sending(name, pool=pool, node=node)
            found = None
            if place.command is not None and place.command.generation >= command.generation:
                return place.command.id == command.id
            try:
                await self.connection.publish(
                    self.subjects.command(pool, name, node),
                    command.encode(),
                    # Handed on to its node it is another message, which the server must not take for a repetition.
                    message_id=f"{command.id}.{node}" if node else command.id,
                    expect=place.sequence,
                )
            except Conflict:
                continue
            return True

    async def forget_commands(self, subject: str, *, up_to: int) -> None:
        """Remove a finished workspace's command, but none that came after sequence `up_to`."""
        await self.connection.purge(self.subjects.commands, subject, up_to=up_to)

    def consume(
        self,
        *,
        stream: str,
        durable: str,
        filters: list[str],
        decode: Callable[[bytes], T],
        handler: Callable[[T, Delivery], Awaitable[None]],
        on_dead: Callable[[T | None, Delivery, str], Awaitable[None]] | None = None,
        max_deliver: int = 8,
        new_only: bool = False,
        parallel: int = 1,
    ) -> asyncio.Task[None]:
        """Start a durable consumer; see Consumer."""
        consumer = Consumer(
            self.connection,
            stream=stream,
            durable=durable,
            filters=filters,
            decode=decode,
            handler=handler,
            dead_letter=self.subjects.dead_letter(durable),
            on_dead=on_dead,
            max_deliver=max_deliver,
            new_only=new_only,
            parallel=parallel,
        )
        return self.run(consumer.run())

    async def ask(
        self,
        verb: str,
        query: BaseModel,
        answer: type[M],
        *,
        node: str | None = None,
        timeout: timedelta = QUERY,
    ) -> M:
        """Ask any who answer (or the one of `node`); Temporary if nobody does, Permanent if the answer is no."""
        subject = self.subjects.query(verb, node)
        try:
            message = await self.connection.client.request(
                subject, query.model_dump_json().encode(), timeout=timeout.total_seconds()
            )
        except nats.errors.NoRespondersError as error:
            raise Temporary("nobody is there to answer") from error
        except (TimeoutError, nats.errors.Error) as error:
            raise BusUnavailable("no answer came in time") from error
        reply = Reply.model_validate_json(message.data)
        if (failure := reply.failure) is not None:
            raise Temporary(failure.message) if failure.temporary else Permanent(failure.message)
        return answer.model_validate(reply.answer)

    async def answer(
        self,
        verb: str,
        query: type[Q],
        handler: Callable[[Q], Awaitable[BaseModel]],
        *,
        node: str | None = None,
    ) -> None:
        """Answer a query until `close`, shared with all who answer the same."""
        slots = asyncio.Semaphore(_QUERIES_AT_ONCE)

        async def reply_to(message: Msg) -> None:
            async with slots:
                reply = await _reply(message.data, query, handler)
            # Not `message.respond`: that one echoes the asker's headers.
            await self.connection.client.publish(message.reply, reply)

        async def on_message(message: Msg) -> None:
            task = asyncio.ensure_future(reply_to(message))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

        await self.connection.client.subscribe(
            self.subjects.query(verb, node), queue=self.connection.settings.service, cb=on_message
        )

    async def _command_on(self, subject: str, patience: timedelta) -> tuple[Command, int] | None:
        raw = await self.connection.last(self.subjects.commands, subject, patience=patience)
        command = _decoded(raw)
        return (command, raw.sequence) if raw and command else None

    async def _provision(self) -> None:
        backoff = Backoff()
        while True:
            try:
                await provision(self.connection, self.subjects, replicas=self.connection.settings.replicas)
            except BusUnavailable as error:
                log.warning("bus.not_provisioned", error=str(error))
                await backoff.sleep()
            else:
                return

    async def _provision_again(self) -> None:
        # The server may have come back with an empty store.
        with self.connection.on_reconnect() as reconnected:
            while True:
                await reconnected.wait()
                reconnected.clear()
                await self._provision()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("bus.task_failed", error=repr(error), exc_info=error)


async def _until(reconnected: asyncio.Event, subscription: Subscription) -> AsyncIterator[Msg]:
    """The messages of a subscription, until the bus has been away: it may be silent for long then."""
    while not reconnected.is_set():
        stop_if_cancelled()
        try:
            yield await subscription.next_msg(timeout=1)
        except TimeoutError:
            continue


def _event(message: Msg | Raw) -> Event | None:
    try:
        return Event.model_validate_json(message.data)
    except ValidationError:
        log.error("events.unreadable", subject=message.subject)
        return None


def _decoded(raw: Raw | None) -> Command | None:
    return _command(raw.data) if raw else None


def _command(data: bytes) -> Command | None:
    try:
        return decode_command(data)
    except ValidationError:
        return None


async def _reply(data: bytes, query: type[Q], handler: Callable[[Q], Awaitable[BaseModel]]) -> bytes:
    try:
        answer = await handler(query.model_validate_json(data))
    except ValidationError:
        failure = Failure(message=f"this is no {query.__name__}")
    except MLHubError as error:
        failure = Failure(message=str(error), temporary=isinstance(error, Temporary))
    except Exception:
        log.exception("query.failed", query=query.__name__)
        failure = Failure(message="the service failed to answer; its log says why", temporary=True)
    else:
        return Reply(answer=answer.model_dump(mode="json")).model_dump_json().encode()
    return Reply(failure=failure).model_dump_json().encode()
