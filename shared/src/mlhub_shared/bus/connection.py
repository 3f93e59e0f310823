"""One connection that never gives up, and publishing over it."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Self

import nats
import nats.errors
import nats.js.api
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext

from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.contracts.message import new_id
from mlhub_shared.errors import BusUnavailable, Conflict, Permanent

log = structlog.get_logger(__name__)

ATTEMPT = timedelta(seconds=2)
"""How long one try to publish may take before the next."""

PATIENCE = timedelta(seconds=15)
"""How long publishing and reading are tried in all: longer than a server's restart or a cluster's election."""

_WRONG_LAST_SEQUENCE = 10071
MARKERS_TTL = timedelta(hours=1)

# `asyncio.TimeoutError` is what nats-py's own TimeoutError derives from.
OUTAGES = (
    TimeoutError,
    asyncio.TimeoutError,
    nats.errors.NoRespondersError,
    nats.errors.ConnectionClosedError,
    nats.errors.ConnectionReconnectingError,
    nats.errors.OutboundBufferLimitError,
    nats.errors.StaleConnectionError,
    nats.js.errors.NoStreamResponseError,
    nats.js.errors.ServiceUnavailableError,
    nats.js.errors.ServerError,
    OSError,
)
"""What a restarting, electing or unreachable server looks like."""


@dataclass(frozen=True)
class BusSettings:
    """Where the bus is and who asks."""

    url: str
    hub: str
    service: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    replicas: int = 1
    """Servers that keep a copy of each stream; the same for every service of a deployment."""


@dataclass(frozen=True)
class Raw:
    """A message as it lies in a stream."""

    subject: str
    data: bytes
    sequence: int
    headers: Mapping[str, str]


class Connection:
    """A connection that reconnects for ever and tells who wants to know."""

    def __init__(self, settings: BusSettings) -> None:
        self.settings = settings
        self.closed = asyncio.Event()
        """Set when the client has given up, which only `close` makes it do."""
        self._client = Client()
        self._reconnected: set[asyncio.Event] = set()
        self._last_error = ""

    @classmethod
    async def open(cls, settings: BusSettings) -> Self:
        """Connect; waits for the server as long as it takes."""
        self = cls(settings)
        await self._client.connect(
            servers=settings.url.split(","),
            name=settings.service,
            user=settings.user,
            password=settings.password,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.25,  # type: ignore[arg-type]
            connect_timeout=2,
            ping_interval=10,
            max_outstanding_pings=2,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
        )
        return self

    @property
    def client(self) -> Client:
        """The NATS client, for this package only."""
        return self._client

    @property
    def js(self) -> JetStreamContext:
        """JetStream, for this package only."""
        return self._client.jetstream(timeout=ATTEMPT.total_seconds())

    @property
    def is_connected(self) -> bool:
        """There is a server at the other end now."""
        return self._client.is_connected

    async def close(self, *, within: timedelta = timedelta(seconds=2)) -> None:
        """Send what is buffered and close, without waiting for a server that is away."""
        try:
            await asyncio.wait_for(
                self._client.drain() if self.is_connected else self._client.close(), within.total_seconds()
            )
        except (TimeoutError, OSError, nats.errors.Error):
            # What is left is a socket that nobody answers on: let it go.
            with suppress(OSError, nats.errors.Error):
                await asyncio.wait_for(self._client.close(), within.total_seconds())

    @contextmanager
    def on_reconnect(self) -> Iterator[asyncio.Event]:
        """An event that is set at each reconnection while the context lasts."""
        event = asyncio.Event()
        self._reconnected.add(event)
        try:
            yield event
        finally:
            self._reconnected.discard(event)

    async def publish(
        self,
        subject: str,
        data: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        message_id: str | None = None,
        expect: int | None = None,
        ttl: timedelta | None = None,
        patience: timedelta = PATIENCE,
    ) -> int:
        """Store a message and return its sequence in the stream; safe to be cut off and tried again.

        `expect` is the sequence that must be the subject's last (0: none): else Conflict. `ttl` counts whole
        seconds. Raises BusUnavailable when `patience` is over, Permanent when the server will never take it.
        """
        head = dict(headers or {})
        head[nats.js.api.Header.MSG_ID] = message_id or new_id()
        if expect is not None:
            head[nats.js.api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE] = str(expect)
        if ttl is not None:
            head[nats.js.api.Header.MSG_TTL] = str(max(1, int(ttl.total_seconds())))
        deadline, backoff = time.monotonic() + patience.total_seconds(), Backoff()
        while True:
            try:
                ack = await self.js.publish(subject, data, headers=head)
            except OUTAGES as error:
                if time.monotonic() > deadline:
                    raise BusUnavailable(f"the bus did not take a message on {subject}") from error
                await backoff.sleep()
            except nats.errors.MaxPayloadError as error:
                raise Permanent(f"a message on {subject} is too large: {len(data)} bytes") from error
            except nats.js.errors.APIError as error:
                raise _refusal(subject, error) from error
            else:
                return ack.seq

    async def last(self, stream: str, subject: str, *, patience: timedelta = PATIENCE) -> Raw | None:
        """The last message of a subject, None if there is none; raises BusUnavailable when `patience` is over.

        As the stream's leader has it: a direct read is answered by any replica, also one that lags behind.
        """
        deadline, backoff = time.monotonic() + patience.total_seconds(), Backoff()
        while True:
            try:
                message = await self.js.get_last_msg(stream, subject)
            except nats.js.errors.NotFoundError:
                return None
            except OUTAGES as error:
                if time.monotonic() > deadline:
                    raise BusUnavailable(f"the bus did not answer for {subject}") from error
                await backoff.sleep()
            else:
                return Raw(subject, message.data or b"", message.seq or 0, message.headers or {})

    async def following(self, stream: str, subject: str, *, after: int) -> Raw | None:
        """The first message of a subject behind that sequence, None if there is none; raises BusUnavailable."""
        try:
            message = await self.js.get_msg(stream, after + 1, subject, next=True)
        except nats.js.errors.NotFoundError:
            return None
        except OUTAGES as error:
            raise BusUnavailable(f"the bus did not answer for {subject}") from error
        return Raw(subject, message.data or b"", message.seq or 0, message.headers or {})

    async def purge(self, stream: str, subject: str, *, up_to: int | None = None) -> None:
        """Remove a subject's messages, those after sequence `up_to` excepted."""
        try:
            await self.js.purge_stream(stream, seq=up_to + 1 if up_to is not None else None, subject=subject)
        except OUTAGES as error:
            raise BusUnavailable(f"the bus did not purge {subject}") from error

    async def _on_error(self, error: Exception) -> None:
        # The client reports each failed attempt; one line for each kind of failure is enough.
        text = str(error) or type(error).__name__
        if text != self._last_error:
            self._last_error = text
            log.warning("bus.error", error=text)

    async def _on_disconnected(self) -> None:
        if not self._client.is_closed:
            log.warning("bus.disconnected")

    async def _on_reconnected(self) -> None:
        self._last_error = ""
        log.info("bus.reconnected")
        for event in tuple(self._reconnected):
            event.set()

    async def _on_closed(self) -> None:
        self.closed.set()


def _refusal(subject: str, error: nats.js.errors.APIError) -> Conflict | Permanent:
    if error.err_code == _WRONG_LAST_SEQUENCE:
        return Conflict(f"somebody else wrote {subject} first")
    return Permanent(f"the bus refuses a message on {subject}: {error.description}")
