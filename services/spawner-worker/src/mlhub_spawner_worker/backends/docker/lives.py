"""Which containers run, and how each came to its end: told by the engine's events, looked up after an outage."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import structlog

from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.contracts.workspace import Reason
from mlhub_shared.errors import MLHubError, Temporary
from mlhub_shared.tasks import end_tasks
from mlhub_spawner_worker.backends.base import Exit, Running
from mlhub_spawner_worker.backends.docker.containers import Containers, Shown
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.events import EngineEvent
from mlhub_spawner_worker.backends.docker.exec import ContainerEntry

log = structlog.get_logger(__name__)

_SIGNALS = range(129, 193)
"""Exit codes that stand for a signal."""

_KILLED = -9

_WHY = 0.3
"""Seconds for the engine to say that memory ran out, after it has said that a container was killed."""


@dataclass
class Life:
    """One container of a workspace from its start to its end."""

    name: str
    user: str
    container: str
    """Its id."""
    running: Running
    port: int
    """Of the workspace, in the container."""
    home: str | None = None
    """Where people's files are; None: not known."""
    entry: ContainerEntry | None = None
    """The way in, once somebody has wanted one."""
    end: asyncio.Future[Exit] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    starved: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when memory has run out in it."""
    is_ending: bool = False
    """The worker itself ends it."""


class Lives:
    """The last life of every workspace."""

    def __init__(self, engine: Engine, containers: Containers) -> None:
        self._engine, self._containers = engine, containers
        self._by_name: dict[str, Life] = {}
        self._by_container: dict[str, Life] = {}
        self._expected: set[str] = set()
        """Containers that will be followed in a moment."""
        self._dead: dict[str, int | None] = {}
        """Those of them that have died meanwhile, with their exit codes."""
        self._starved: set[str] = set()
        """Those of them whose memory has run out meanwhile."""
        self._tasks: set[asyncio.Task[None]] = set()
        engine.events.on_connected(self.look)
        engine.events.on_event(self._seen)

    async def aclose(self) -> None:
        """Follow no more."""
        await end_tasks(*self._tasks)

    @contextlib.contextmanager
    def expecting(self, container: str) -> Iterator[None]:
        """Miss no death of a container that is started, and looked at, before it is followed."""
        self._expected.add(container)
        try:
            yield
        finally:
            self._expected.discard(container)
            self._starved.discard(container)
            self._dead.pop(container, None)

    def begin(self, life: Life) -> Life:
        """Follow a container from now on."""
        self.forget(life.name)
        self._by_name[life.name] = self._by_container[life.container] = life
        if life.container in self._starved:
            life.starved.set()
        if life.container in self._dead:
            self.settle_soon(life, told=self._dead[life.container])
        return life

    def forget(self, name: str) -> None:
        """Know nothing of it any more."""
        life = self._by_name.pop(name, None)
        if life is not None:
            self._by_container.pop(life.container, None)
            if not life.end.done():
                life.end.set_result(Exit(None))

    def get(self, name: str) -> Life | None:
        """The last life of a workspace, over or not."""
        return self._by_name.get(name)

    def running(self, name: str) -> Life | None:
        """Its life if it lives."""
        life = self._by_name.get(name)
        return life if life is not None and not life.end.done() else None

    def enter(self, name: str) -> ContainerEntry | None:
        """The way into it if it lives, the same one for all who enter."""
        life = self.running(name)
        if life is not None and life.entry is None:
            life.entry = ContainerEntry(self._engine, life.container, home=life.home)
        return life.entry if life is not None else None

    async def wait(self, name: str) -> Exit:
        """Wait for its end; at once if it does not live."""
        life = self._by_name.get(name)
        return await asyncio.shield(life.end) if life is not None else Exit(None)

    async def settle(self, life: Life, *, told: int | None = None) -> None:
        """Find out whether it is over, and how; `told` is the exit code as an event had it."""
        async with life.lock:
            if life.end.done():
                return
            # Before the container is looked at: what dies with its engine dies before another one answers.
            boot = await self._engine.look_at_boot()
            shown = await self._containers.find(life.container)
            if shown is not None and shown.runs:
                return
            tail = await self._containers.tail(life.container) if shown is not None else ""
            end = Exit(None, tail)
            if boot == life.running.boot:
                code = _signed(told if shown is None else shown.exit_code)
                reason = Reason.OUT_OF_MEMORY if await _has_starved(life, code, shown) else Reason.EXITED
                end = Exit(code, tail, reason=reason)
            if not life.end.done():
                life.end.set_result(end)

    async def look(self) -> None:
        """Compare with what is there: events may have been missed."""
        await self._engine.look_at_boot()
        listed = {shown.id: shown for shown in await self._containers.list()}
        for life in list(self._by_name.values()):
            shown = listed.get(life.container)
            if not life.end.done() and (shown is None or not shown.runs):
                self.settle_soon(life)

    def settle_soon(self, life: Life, *, told: int | None = None) -> None:
        """Find out in the background, however long the engine is away."""
        self._spawn(self._settle_for_certain(life, told))

    async def _settle_for_certain(self, life: Life, told: int | None) -> None:
        backoff = Backoff(first=0.1, most=2)
        while True:
            try:
                await self.settle(life, told=told)
            except Temporary:
                await backoff.sleep()
            except MLHubError as error:
                log.warning("docker.end_unknown", workspace=life.name, why=str(error))
                await backoff.sleep()
            else:
                return

    def _seen(self, event: EngineEvent) -> None:
        is_expected, life = event.container in self._expected, self._by_container.get(event.container)
        if event.action == "oom":
            if is_expected:
                self._starved.add(event.container)
            if life is not None:
                life.starved.set()
        elif event.action in ("die", "destroy"):
            if is_expected:
                self._dead[event.container] = event.exit_code
            if life is not None:
                self.settle_soon(life, told=event.exit_code)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _signed(code: int | None) -> int | None:
    return 128 - code if code is not None and code in _SIGNALS else code


async def _has_starved(life: Life, code: int | None, shown: Shown | None) -> bool:
    if code != _KILLED or shown is None:
        return False
    if shown.has_mem_limit and not shown.out_of_memory and not life.is_ending:
        # The engine may tell of the death before it tells why.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(life.starved.wait(), _WHY)
    return shown.out_of_memory or life.starved.is_set()
