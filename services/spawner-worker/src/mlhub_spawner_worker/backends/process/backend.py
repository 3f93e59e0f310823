"""The process backend: one local process for each workspace."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import structlog

from mlhub_shared.contracts.queries import Resource
from mlhub_shared.contracts.workspace import Endpoint, WorkspaceRecord
from mlhub_shared.errors import Temporary
from mlhub_shared.tasks import end_tasks
from mlhub_spawner_worker.backends.base import (
    BackendError,
    Exit,
    Found,
    Job,
    Listening,
    Report,
    Running,
    Sight,
    no_trouble,
)
from mlhub_spawner_worker.backends.process import log as logs
from mlhub_spawner_worker.backends.process.child import Child, reap
from mlhub_spawner_worker.backends.process.entry import LocalEntry
from mlhub_spawner_worker.backends.process.environment import environment_for
from mlhub_spawner_worker.backends.process.folders import Folders, ProcessState, State
from mlhub_spawner_worker.backends.process.identity import Identity, boot_id
from mlhub_spawner_worker.backends.process.limits import Limiter, find_limiter
from mlhub_spawner_worker.backends.process.plan import Plan, ProcessSettings, close_to_children, launch
from mlhub_spawner_worker.backends.process.ports import LOOPBACK, choose_port, is_free, listening
from mlhub_spawner_worker.backends.process.sweep import kill_marked, marked
from mlhub_spawner_worker.entry import Entry

log = structlog.get_logger(__name__)

T = TypeVar("T")

_PATIENCE = timedelta(seconds=5)
"""For what is under way when the worker ends."""

_TRIM_EVERY = timedelta(seconds=10)


class ProcessBackend:
    """Implements Backend. All about one workspace happens under its lock, and to its end, whoever stops waiting."""

    name = "process"
    cluster: str | None = None
    out_of_reach = ""
    images_allowed = False
    gpus_counted = False
    gpus_allowed = False
    gpus: tuple[str, ...] = ()

    def __init__(self, settings: ProcessSettings, *, limiter: Callable[[str], Limiter] = find_limiter) -> None:
        self._settings, self._find_limiter = settings, limiter
        self._folders = Folders(settings.data_dir)
        self._children: dict[str, Child] = {}
        self._ends: dict[str, Exit] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._limiter: Limiter
        self._instance = ""
        self.limits = ""
        self.boot = boot_id()
        self.cpu_total: float | None = float(os.cpu_count() or 1)
        self.mem_total: int | None = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    async def open(self) -> None:
        """Take the data directory, adopt what runs, kill what carries a mark that no state claims."""
        self._instance = await asyncio.to_thread(self._folders.open)
        close_to_children()
        self._limiter = await asyncio.to_thread(self._find_limiter, self._instance)
        self.limits = self._limiter.sentence
        for name, state in (await asyncio.to_thread(self._states)).items():
            if state.process is not None and (child := Child.adopt(state.process)) is not None:
                self._children[name] = child
        stray = await asyncio.to_thread(marked, self._instance)
        for name in set(stray.values()) - set(self._children):
            log.warning("process.stray", workspace=name)
            await asyncio.to_thread(self._kill_all, name)
        self._run(self._trim_logs())
        log.info("process.opened", adopted=len(self._children), limits=self.limits)

    async def aclose(self) -> None:
        """Let go: what runs goes on running. Starts under way are waited for."""
        busy = [lock.acquire() for lock in self._locks.values()]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*busy), _PATIENCE.total_seconds())
        await end_tasks(*self._tasks, within=_PATIENCE)
        for child in self._children.values():
            child.let_go()
        self._folders.close()

    async def inventory(self) -> list[Found]:
        """Every workspace with a folder."""
        states = await asyncio.to_thread(self._states)
        return [Found(state.record, self._running(name)) for name, state in states.items()]

    async def prepare(self, job: Job, report: Report) -> None:
        """Make the workspace's folder."""
        await report(50, "Making its directory")
        try:
            await self._alone(job.name, lambda: self._prepare(job))
        except OSError as error:
            raise BackendError(f"its directory can't be made: {error.strerror}") from error

    async def start(self, job: Job) -> Running:
        """Start it unless it runs already."""
        return await self._alone(job.name, lambda: self._start(job))

    async def wait(self, name: str) -> Exit:
        """Wait for the end of its leading process."""
        child = self._children.get(name)
        if child is not None:
            await asyncio.wait({child.ended})
            async with self._lock(name):
                return await self._end_of(name, child)
        return self._ends.get(name) or Exit(None, await self._tail(name))

    async def trouble(self, name: str, known: str) -> str:
        """None that a process would tell of."""
        return await no_trouble(known)

    async def stop(self, name: str, *, grace: timedelta, up_to: int) -> str:
        """End its group, then whatever else carries its marker or is in its cgroup."""
        return await self._alone(name, lambda: self._stop(name, grace, up_to))

    async def erase(self, name: str, *, up_to: int) -> None:
        """Remove its folder."""
        try:
            await self._alone(name, lambda: self._erase(name, up_to))
        except OSError as error:
            raise Temporary(f"its directory can't be removed now: {error.strerror}") from error

    async def remember(self, record: WorkspaceRecord) -> None:
        """Keep the record in its folder, if there is one; a full disk must not stop what the record asks for."""
        try:
            await self._alone(record.name, lambda: asyncio.to_thread(self._remember, record))
        except OSError as error:
            log.warning("process.not_remembered", workspace=record.name, error=error.strerror)

    async def describe(self, name: str) -> Sight:
        """Memory and CPU as its cgroup counts them."""
        is_running = self._running(name) is not None
        cpu, memory = await asyncio.to_thread(self._limiter.usage, name) if is_running else (None, None)
        return Sight(is_running, cpu, memory, await self._tail(name))

    async def resources(self) -> list[Resource]:
        """A directory for each workspace, and a process for each that runs."""
        states = await asyncio.to_thread(self._states)
        found = []
        for name in await asyncio.to_thread(self._folders.names):
            workspace = states[name].record.workspace if name in states else None
            found.append(Resource(kind="directory", name=name, workspace=workspace))
            if (child := self._children.get(name)) is not None and child.is_alive:
                found.append(Resource(kind="process", name=str(child.state.pid), workspace=workspace))
        return found

    async def listening(self, name: str) -> list[Listening]:
        """By the sockets that its processes hold."""
        child = self._children.get(name)
        if child is None or not child.is_alive:
            return []
        return await asyncio.to_thread(self._listening, name, child.state.port)

    def session(self, name: str) -> Entry | None:
        """Its home, and the environment that its leading process was started with."""
        child = self._children.get(name)
        if child is None or not child.is_alive:
            return None
        try:
            data = Path(f"/proc/{child.state.pid}/environ").read_bytes()
        except OSError:
            return None
        pairs = (item.partition(b"=") for item in data.split(b"\0") if item)
        environment = {os.fsdecode(key): os.fsdecode(value) for key, _, value in pairs}
        return LocalEntry(self._folders.home(name), environment, lambda pid: self._limiter.join(name, pid))

    # Under the workspace's lock

    async def _prepare(self, job: Job) -> None:
        await asyncio.to_thread(self._folders.make, job.name)
        await asyncio.to_thread(self._remember, job.record)

    async def _start(self, job: Job) -> Running:
        running = self._running(job.name)
        if running is not None and running.generation == job.record.generation:
            return running
        await self._end(job.name, timedelta(0))
        self._ends.pop(job.name, None)
        state = await asyncio.to_thread(self._launch, job, {child.state.port for child in self._children.values()})
        child = Child.adopt(state)
        if child is None:
            # Dead already: whoever waits for it learns that at once.
            self._ends[job.name] = Exit(reap(state.pid), await self._tail(job.name))
            return _running(state)
        self._children[job.name] = child
        return _running(state)

    async def _stop(self, name: str, grace: timedelta, up_to: int) -> str:
        return "" if self._runs_since(name, up_to) else await self._end(name, grace)

    async def _end(self, name: str, grace: timedelta) -> str:
        if (child := self._children.get(name)) is not None:
            await child.end(grace=grace)
            await self._end_of(name, child)
        await asyncio.to_thread(self._kill_all, name)
        return await self._tail(name)

    async def _erase(self, name: str, up_to: int) -> None:
        if not self._runs_since(name, up_to):
            await asyncio.to_thread(self._folders.erase, name)
            self._ends.pop(name, None)

    def _runs_since(self, name: str, generation: int) -> bool:
        """It was started for a newer one."""
        running = self._running(name)
        return running is not None and running.generation > generation

    async def _end_of(self, name: str, child: Child) -> Exit:
        if self._children.get(name) is child:
            del self._children[name]
            code = child.ended.result()
            taken = code not in (0, None) and not is_free(child.state.port)
            self._ends[name] = Exit(code, await self._tail(name), again=taken)
        return self._ends.get(name) or Exit(None)

    # In threads

    def _states(self) -> dict[str, State]:
        states = {name: self._folders.read(name) for name in self._folders.names()}
        return {name: state for name, state in states.items() if state is not None and state.record.name == name}

    def _remember(self, record: WorkspaceRecord) -> None:
        if not self._folders.of(record.name).is_dir():
            return
        child = self._children.get(record.name)
        process = child.state if child is not None and child.is_alive else None
        self._folders.write(record.name, State(record=record, process=process))

    def _launch(self, job: Job, taken: set[int]) -> ProcessState:
        name, port = job.name, choose_port(taken)
        self._folders.make(name)
        environment = environment_for(
            job,
            self._settings.environment,
            home=self._folders.home(name),
            port=port,
            instance=self._instance,
            passed=self._settings.passed,
        )
        plan = Plan(self._settings.command, environment, self._folders.home(name), self._folders.log(name))
        launched: list[ProcessState] = []

        def before(identity: Identity) -> None:
            state = ProcessState(
                pid=identity.pid,
                start=identity.start,
                boot=identity.boot,
                port=port,
                generation=job.record.generation,
            )
            self._folders.write(name, State(record=job.record, process=state))
            self._limiter.join(name, identity.pid)
            launched.append(state)

        try:
            self._limiter.make(name, job.record.spec)
            launch(plan, before)
        except OSError as error:
            raise Temporary(f"the workspace can't be started now: {error.strerror}") from error
        return launched[0]

    def _listening(self, name: str, own_port: int) -> list[Listening]:
        members = self._limiter.members(name)
        return listening(marked(self._instance, name) if members is None else members, but=own_port)

    def _kill_all(self, name: str) -> None:
        self._limiter.kill(name)
        if left := kill_marked(self._instance, name):
            raise Temporary(f"{len(left)} processes of the workspace can't be killed")

    # Around them

    def _running(self, name: str) -> Running | None:
        child = self._children.get(name)
        return _running(child.state) if child is not None and child.is_alive else None

    async def _tail(self, name: str) -> str:
        return await asyncio.to_thread(logs.tail, self._folders.log(name))

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    async def _alone(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        async def locked() -> T:
            async with self._lock(name):
                return await work()

        # To its end: a start that is cut off between fork and its state on disk would leave a process behind.
        return await asyncio.shield(self._run(locked()))

    def _run(self, work: Coroutine[None, None, T]) -> asyncio.Task[T]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _trim_logs(self) -> None:
        while True:
            await asyncio.sleep(_TRIM_EVERY.total_seconds())
            for name in tuple(self._children):
                await asyncio.to_thread(logs.trim, self._folders.log(name), self._settings.max_log_bytes)


def _running(state: ProcessState) -> Running:
    return Running(state.generation, Endpoint(host=LOOPBACK, port=state.port), state.boot)
