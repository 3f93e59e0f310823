"""What happens to containers, as the engine tells it: one stream, for all who want to hear of it."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.errors import MLHubError, Temporary
from mlhub_shared.tasks import end_tasks
from mlhub_spawner_worker.backends.docker import labels

if TYPE_CHECKING:
    from mlhub_spawner_worker.backends.docker.engine import Engine

log = structlog.get_logger(__name__)

_SILENCE = 300
"""Seconds without a word after which the stream is opened anew: a host that is gone says nothing either."""

_ACTIONS = ("start", "die", "oom", "destroy")


@dataclass(frozen=True)
class EngineEvent:
    """Something happened to a container of this deployment."""

    action: str
    """`start`, `die`, `oom`, `destroy`."""
    container: str
    """Its id."""
    labels: labels.Labels
    """Its labels, and what the engine adds: `name`, `image`, `exitCode`."""

    @property
    def exit_code(self) -> int | None:
        """Of a `die`."""
        text = self.labels.get("exitCode", "")
        return int(text) if text.isdigit() else None


OnEvent = Callable[[EngineEvent], None]
OnConnected = Callable[[], Awaitable[None]]


class Events:
    """Follows the engine's events of this deployment's containers, workspaces and services alike."""

    def __init__(self, engine: "Engine", hub: str) -> None:
        self._engine, self._hub = engine, hub
        self._on_event: list[OnEvent] = []
        self._on_connected: list[OnConnected] = []
        self._task: asyncio.Task[None] | None = None
        self.connected = asyncio.Event()
        """Set while events come in."""

    def on_event(self, told: OnEvent) -> None:
        """Call that with every event; it must be quick and raise nothing."""
        self._on_event.append(told)

    def on_connected(self, told: OnConnected) -> None:
        """Await that whenever the stream is open anew: what happened before was not told, so look for yourself."""
        self._on_connected.append(told)

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.ensure_future(self._run())

    async def aclose(self) -> None:
        """Stop following."""
        if self._task is not None:
            await end_tasks(self._task)

    async def _run(self) -> None:
        backoff = Backoff(first=0.05, most=2)
        while True:
            try:
                await self._follow(backoff)
            except Temporary as error:
                if self.connected.is_set():
                    log.warning("docker.events_away", why=str(error))
            except Exception:
                log.exception("docker.events_failed")
            finally:
                self.connected.clear()
            await backoff.sleep()

    async def _follow(self, backoff: Backoff) -> None:
        filters = json.dumps({"type": ["container"], "event": list(_ACTIONS)})
        looking: list[asyncio.Task[None]] = []

        def opened() -> None:
            # A look at what is there begins only now that nothing that follows can be missed.
            looking.append(asyncio.ensure_future(self._look(backoff)))

        stream = self._engine.stream("events", silence=_SILENCE, opened=opened, filters=filters)
        try:
            async with contextlib.aclosing(stream) as raws:
                async for raw in raws:
                    self._tell(raw)
        finally:
            await end_tasks(*looking)

    async def _look(self, backoff: Backoff) -> None:
        while True:
            try:
                for told in self._on_connected:
                    await told()
            except MLHubError as error:
                log.info("docker.look_failed", why=str(error))
                await asyncio.sleep(1)
            else:
                backoff.reset()
                self.connected.set()
                log.info("docker.events_connected")
                return

    def _tell(self, raw: dict[str, Any]) -> None:
        attributes = raw.get("Actor", {}).get("Attributes") or {}
        if self._hub not in (attributes.get(labels.ORIGIN), attributes.get(labels.DEPLOYMENT)):
            return
        event = EngineEvent(str(raw.get("Action", "")), str(raw["Actor"]["ID"]), attributes)
        for told in self._on_event:
            told(event)
