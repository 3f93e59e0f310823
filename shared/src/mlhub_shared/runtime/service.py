"""The life of a service: settings, logging, bus, handlers, ready, signal, drain, close."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import structlog
import uvicorn
from fastapi import FastAPI
from prometheus_client import Counter
from starlette.types import ASGIApp, Receive, Scope, Send

from mlhub_shared.bus import Bus
from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.runtime.clock import Clock, utc_now
from mlhub_shared.runtime.health import Health
from mlhub_shared.runtime.http import create_app, create_waiting_app
from mlhub_shared.runtime.logging import configure_logging
from mlhub_shared.runtime.settings import CommonSettings
from mlhub_shared.tasks import end_tasks

log = structlog.get_logger(__name__)

T = TypeVar("T")

DRAIN = 10.0
"""Seconds that a service may take to end after SIGTERM before its tasks are cancelled."""

_RESTARTS = Counter("mlhub_task_restarts", "Background tasks that failed and were started again", ["task"])


@dataclass
class Runtime:
    """What a service is given to build itself from."""

    service: str
    bus: Bus
    app: FastAPI
    health: Health
    clock: Clock = utc_now
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the service is asked to end."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _failing: dict[str, str] = field(default_factory=dict)

    def keep_running(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run work that should never end; started again with back-off when it fails, not ready meanwhile."""
        self.health.require(name, lambda: self._failing.get(name))
        task = asyncio.ensure_future(self._again_and_again(name, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Cancel what `keep_running` runs."""
        await end_tasks(*self._tasks, within=timedelta(seconds=DRAIN))

    async def _again_and_again(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        backoff = Backoff(first=0.2, most=10)
        while True:
            started = asyncio.get_running_loop().time()
            try:
                await work()
                self._failing[name] = "it ended"
            except Exception as error:
                log.exception("task.failed", task=name)
                self._failing[name] = str(error) or type(error).__name__
            if asyncio.get_running_loop().time() - started > 30:
                backoff.reset()
            _RESTARTS.labels(task=name).inc()
            await backoff.sleep()
            self._failing.pop(name, None)


Build = Callable[[Runtime], AbstractAsyncContextManager[None]]
"""Builds a service; what it enters is left, in order, when the service ends."""


class _Front:
    """The web server's application, whatever it is now."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


async def serve(service: str, settings: CommonSettings, build: Build) -> None:
    """Run a service until SIGTERM or SIGINT; from the first moment it tells over HTTP what it waits for."""
    configure_logging(service, level=settings.log_level, style=settings.log_format)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    sock = socket.create_server((settings.http_host, settings.http_port), reuse_port=False)
    address = "{}:{}".format(*sock.getsockname()[:2])
    opening = asyncio.ensure_future(Bus.open(settings.bus(service)))
    waiting = Health()
    waiting.require("bus", lambda: None if opening.done() else "it waits for the bus, and for enough servers of it")
    waiting.require("start", lambda: "it has not started yet")
    front = _Front(create_waiting_app(service, waiting, settings.internal_token))
    serving = asyncio.ensure_future(serve_app(front, sock, stopping))
    try:
        if not await _unless(stopping, opening):
            return
        bus = await opening
        health = Health()
        health.require("bus", lambda: None if bus.is_connected else "the bus is away")
        runtime = Runtime(service, bus, create_app(service, health, settings.internal_token), health, stopping=stopping)
        try:
            async with build(runtime):
                front.app = runtime.app
                log.info("service.started", http=address)
                await serving
        finally:
            await runtime.end()
            await bus.close()
            log.info("service.ended")
    finally:
        stopping.set()
        await serving


def main(service: str, settings: CommonSettings, build: Build) -> None:
    """Entry point of a service's `__main__`."""
    asyncio.run(serve(service, settings, build))


async def serve_app(app: ASGIApp, sock: socket.socket, stopping: asyncio.Event) -> None:
    """Serve a web application on a bound socket until asked to stop or cancelled; closes the socket."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=int(DRAIN))
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[sock]))
    try:
        await _unless(stopping, serving)
    finally:
        server.should_exit = True
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(serving, DRAIN)
        sock.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        """Leave the signals to `serve`, which ends more than a web server."""
        yield


async def _unless(stopping: asyncio.Event, work: "asyncio.Task[T]") -> bool:
    """Wait for the work, but not beyond a request to stop; False then."""
    waiting = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({waiting, work}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return work.done()
