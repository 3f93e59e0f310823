"""A durable pull consumer: at least once, retried, and never lost when nobody can handle it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from pydantic import ValidationError

from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.bus.connection import OUTAGES, Connection
from mlhub_shared.contracts.message import Message
from mlhub_shared.errors import Permanent, Temporary
from mlhub_shared.tasks import end_tasks, stop_if_cancelled

log = structlog.get_logger(__name__)

T = TypeVar("T")

FETCH = timedelta(seconds=5)
"""A fetch that was pending when the server died never ends before its own time-out."""

MAX_RETRY_DELAY = timedelta(seconds=30)


@dataclass(frozen=True)
class Delivery:
    """What a handler may want to know of the message beside its content."""

    subject: str
    sequence: int
    """Of the message in its stream."""
    attempt: int
    """From 1."""


class Consumer(Generic[T]):
    """Pulls messages of a stream one at a time and hands them, decoded, to a handler.

    The handler's error decides: none, ack; Permanent, dead letter and ack; Temporary, again after its delay; any
    other counts as temporary with a growing delay. After `max_deliver` attempts the message becomes a dead letter
    too. `on_dead` is told of each (the message is None where it could not be decoded).
    """

    def __init__(
        self,
        connection: Connection,
        *,
        stream: str,
        durable: str,
        filters: list[str],
        decode: Callable[[bytes], T],
        handler: Callable[[T, Delivery], Awaitable[None]],
        dead_letter: str,
        on_dead: Callable[[T | None, Delivery, str], Awaitable[None]] | None = None,
        max_deliver: int = 8,
        ack_wait: timedelta = timedelta(seconds=10),
        new_only: bool = False,
        parallel: int = 1,
    ) -> None:
        self._connection, self._stream, self._durable, self._filters = connection, stream, durable, filters
        self._decode, self._handler, self._on_dead = decode, handler, on_dead
        self._dead_letter, self._max_deliver, self._ack_wait = dead_letter, max_deliver, ack_wait
        self._new_only, self._parallel = new_only, parallel
        self._subscription: JetStreamContext.PullSubscription | None = None

    async def run(self) -> None:
        """Consume until cancelled; the consumer is made anew when it or its stream is gone."""
        backoff = Backoff()
        with self._connection.on_reconnect() as reconnected:
            while True:
                try:
                    await self._bind()
                    reconnected.clear()
                    await self._consume_until(reconnected, backoff)
                except asyncio.CancelledError:
                    raise
                except Exception as error:  # noqa: BLE001  (whatever broke it, binding again is the cure)
                    log.warning("consumer.lost", durable=self._durable, error=str(error) or repr(error))
                    await backoff.sleep()
                finally:
                    await self._unbind()

    async def _bind(self) -> None:
        config = ConsumerConfig(
            durable_name=self._durable,
            filter_subjects=self._filters,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._ack_wait.total_seconds(),
            deliver_policy=DeliverPolicy.NEW if self._new_only else DeliverPolicy.ALL,
            max_deliver=-1,
        )
        js = self._connection.js
        await js.add_consumer(self._stream, config)
        self._subscription = await js.pull_subscribe_bind(self._durable, stream=self._stream)

    async def _unbind(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None and self._connection.is_connected:
            try:
                await subscription.unsubscribe()
            except nats.errors.Error as error:
                log.debug("consumer.unsubscribe_failed", durable=self._durable, error=str(error))

    async def _consume_until(self, reconnected: asyncio.Event, backoff: Backoff) -> None:
        loops = [asyncio.ensure_future(self._loop(backoff)) for _ in range(self._parallel)]
        waiting = asyncio.ensure_future(reconnected.wait())
        try:
            done, _ = await asyncio.wait([*loops, waiting], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {waiting}:
                await task
        finally:
            await end_tasks(*loops, waiting)

    async def _loop(self, backoff: Backoff) -> None:
        while (subscription := self._subscription) is not None:
            stop_if_cancelled()
            try:
                messages = await subscription.fetch(1, timeout=FETCH.total_seconds())
            except TimeoutError:
                continue
            backoff.reset()
            for message in messages:
                await self._deliver(message)

    async def _deliver(self, message: Msg) -> None:
        metadata = message.metadata
        delivery = Delivery(message.subject, metadata.sequence.stream, metadata.num_delivered or 1)
        keeping = asyncio.ensure_future(self._keep(message))
        try:
            await self._handle(message, delivery)
        except OUTAGES as error:
            log.warning("consumer.ack_failed", durable=self._durable, error=str(error) or repr(error))
        finally:
            keeping.cancel()

    async def _handle(self, message: Msg, delivery: Delivery) -> None:
        try:
            content = self._decode(message.data)
        except (ValidationError, ValueError) as error:
            await self._bury(message, None, delivery, f"not readable: {type(error).__name__}")
            return
        with structlog.contextvars.bound_contextvars(**_context(content)):
            try:
                await self._handler(content, delivery)
            except Permanent as error:
                await self._bury(message, content, delivery, str(error))
            except Temporary as error:
                await self._again(message, content, delivery, str(error), error.delay)
            except Exception as error:
                log.exception("consumer.handler_failed", durable=self._durable)
                delay = min(timedelta(seconds=0.5 * 2**delivery.attempt), MAX_RETRY_DELAY)
                await self._again(message, content, delivery, f"{type(error).__name__}", delay)
            else:
                await message.ack()

    async def _again(self, message: Msg, content: T, delivery: Delivery, why: str, delay: timedelta) -> None:
        if delivery.attempt >= self._max_deliver:
            await self._bury(message, content, delivery, f"given up after {delivery.attempt} attempts: {why}")
            return
        log.info("consumer.retry", durable=self._durable, attempt=delivery.attempt, why=why)
        await message.nak(delay=delay.total_seconds())

    async def _bury(self, message: Msg, content: T | None, delivery: Delivery, why: str) -> None:
        log.error("consumer.dead_letter", durable=self._durable, subject=delivery.subject, why=why)
        await self._connection.publish(
            self._dead_letter,
            message.data,
            headers={"MLHub-Subject": delivery.subject, "MLHub-Why": " ".join(why.split())[:500]},
            message_id=f"{self._durable}-{delivery.sequence}",
        )
        if self._on_dead is not None:
            try:
                await self._on_dead(content, delivery, why)
            except Exception:
                log.exception("consumer.on_dead_failed", durable=self._durable)
        await message.ack()

    async def _keep(self, message: Msg) -> None:
        while True:
            await asyncio.sleep(self._ack_wait.total_seconds() / 3)
            try:
                await message.in_progress()
            except (nats.errors.Error, *OUTAGES):
                log.debug("consumer.in_progress_failed", durable=self._durable)


def _context(content: object) -> dict[str, str]:
    if not isinstance(content, Message):
        return {}
    context = {"correlation_id": content.correlation_id}
    workspace = getattr(content, "workspace", None)
    if workspace is not None:
        context["workspace"] = workspace.name
    return context
