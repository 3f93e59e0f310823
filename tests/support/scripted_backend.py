"""A backend without anything behind it that misbehaves at a named moment; it outlives the workers that use it."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from mlhub_shared.contracts.queries import Resource
from mlhub_shared.contracts.workspace import Endpoint, Reason, WorkspaceRecord
from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends.base import (
    BackendError,
    Exit,
    Found,
    Job,
    Listening,
    Report,
    Running,
    Sight,
)
from mlhub_spawner_worker.backends.process import LocalEntry
from mlhub_spawner_worker.entry import Entry


@dataclass
class Script:
    """What happens to one workspace; the variables of its spec name the exceptions."""

    record: WorkspaceRecord
    running: Running | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    exit: Exit = field(default_factory=lambda: Exit(None))


class ScriptedBackend:
    """Implements Backend. `FAKE_...` variables in a spec say what goes wrong with that workspace.

    FAKE_SLOW_PREPARE: preparing takes for ever. FAKE_FAIL_START: it can't be started, for this reason. FAKE_BUSY:
    starting fails for now, that many times. FAKE_EXIT: it dies with this code between its start and its first answer.
    FAKE_STOP_HANGS: its stop hangs once.
    """

    name = "scripted"
    cluster: str | None = None
    out_of_reach = ""
    images_allowed = False
    gpus_counted = False
    gpus_allowed = False
    gpus: tuple[str, ...] = ()
    limits = "none"
    cpu_total: float | None = None
    mem_total: int | None = None

    def __init__(self) -> None:
        self.boot = "boot-1"
        self.scripts: dict[str, Script] = {}
        self.calls: Counter[tuple[str, str]] = Counter()
        self.starts: Counter[tuple[str, int]] = Counter()
        """By name and generation."""
        self.most_at_once = 0
        self.stuck: set[str] = set()
        """What can't be stopped now, nor cleared away."""
        self.latency: Callable[[], float] = float
        """Seconds that a call takes until it does anything."""
        self.held: set[tuple[str, str]] = set()
        """Calls that do nothing until they are taken out of here."""
        self.asked: Counter[tuple[str, str]] = Counter()
        """Calls that came, whether they have done anything or not."""
        self.troubles: dict[str, str] = {}
        self.listens: list[Listening] = []
        """In every workspace."""
        self._port = 10000

    async def open(self) -> None:
        pass

    async def aclose(self) -> None:
        pass

    async def inventory(self) -> list[Found]:
        return [Found(script.record, script.running) for script in self.scripts.values()]

    async def prepare(self, job: Job, report: Report) -> None:
        await self._reached("prepare", job.name)
        _check_not_late(self.scripts.get(job.name), job)
        self._note("prepare", job.name)
        await report(50, "Preparing by the book")
        if "FAKE_SLOW_PREPARE" in job.record.spec.env:
            await asyncio.sleep(3600)
        self.scripts.setdefault(job.name, Script(job.record)).record = job.record

    async def start(self, job: Job) -> Running:
        await self._reached("start", job.name)
        env = job.record.spec.env
        script = self.scripts.setdefault(job.name, Script(job.record))
        if script.running is not None and script.running.generation == job.record.generation:
            return script.running
        _check_not_late(script, job)
        self._note("start", job.name)
        self.starts[job.name, job.record.generation] += 1
        if "FAKE_FAIL_START" in env:
            raise BackendError("the script says no", reason=Reason(env["FAKE_FAIL_START"]))
        if self.calls["start", job.name] <= int(env.get("FAKE_BUSY", "0")):
            raise Temporary("the script says not now", delay=timedelta(milliseconds=10))
        self._port += 1
        image_id = f"id-of-{job.record.spec.image}" if self.images_allowed else ""
        endpoint = Endpoint(host="127.0.0.1", port=self._port)
        started = Running(job.record.generation, endpoint, self.boot, image_id)
        script.running = started
        script.ended = asyncio.Event()
        self.most_at_once = max(self.most_at_once, sum(s.running is not None for s in self.scripts.values()))
        if "FAKE_EXIT" in env:
            self.die(job.name, int(env["FAKE_EXIT"]))
        return started

    async def wait(self, name: str) -> Exit:
        script = self.scripts.get(name)
        if script is None or script.running is None:
            return script.exit if script else Exit(None)
        await script.ended.wait()
        return script.exit

    async def trouble(self, name: str, known: str) -> str:
        while self.troubles.get(name, "") == known:  # noqa: ASYNC110  (a test knows of no event)
            await asyncio.sleep(0.05)
        return self.troubles.get(name, "")

    async def stop(self, name: str, *, grace: timedelta, up_to: int) -> str:
        await self._reached("stop", name)
        self._note("stop", name)
        if name in self.stuck:
            raise BackendError("the script won't let go of it")
        script = self.scripts.get(name)
        if script is None or _runs_since(script, up_to):
            return ""
        if "FAKE_STOP_HANGS" in script.record.spec.env and self.calls["stop", name] == 1:
            await asyncio.sleep(3600)
        if script.running is not None:
            self.die(name, -15)
        return "the last line\n"

    async def erase(self, name: str, *, up_to: int) -> None:
        await self._reached("erase", name)
        self._note("erase", name)
        if (script := self.scripts.get(name)) is not None and _runs_since(script, up_to):
            return
        self.scripts.pop(name, None)

    async def remember(self, record: WorkspaceRecord) -> None:
        if (script := self.scripts.get(record.name)) is not None:
            script.record = record

    async def describe(self, name: str) -> Sight:
        script = self.scripts.get(name)
        return Sight(script is not None and script.running is not None, log_tail="the last line\n")

    async def resources(self) -> list[Resource]:
        return [Resource(kind="script", name=name, workspace=s.record.workspace) for name, s in self.scripts.items()]

    async def listening(self, name: str) -> list[Listening]:
        self._note("listening", name)
        await asyncio.sleep(0.01)
        return self.listens if name in self.running() else []

    def session(self, name: str) -> Entry | None:
        return LocalEntry(Path("/"), {}) if name in self.running() else None

    # What a test does to it

    def die(
        self,
        name: str,
        code: int | None,
        reason: Reason = Reason.EXITED,
        message: str = "",
        *,
        with_host: bool = False,
    ) -> None:
        """End a workspace as if by itself."""
        script = self.scripts[name]
        script.running = None
        script.exit = Exit(code, "the last line\n", reason=reason, message=message, with_host=with_host)
        script.ended.set()

    def restart_host(self) -> None:
        """Everything dies, and the host is another boot."""
        self.boot += "+"
        for name, script in self.scripts.items():
            if script.running is not None:
                self.die(name, None)

    def running(self) -> set[str]:
        """The workspaces that run."""
        return {name for name, script in self.scripts.items() if script.running is not None}

    def is_called(self, call: str, name: str) -> bool:
        """The worker has asked for this."""
        return self.calls[call, name] > 0

    async def _reached(self, call: str, name: str) -> None:
        self.asked[call, name] += 1
        if (seconds := self.latency()) > 0:
            await asyncio.sleep(seconds)
        while (call, name) in self.held:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def _note(self, call: str, name: str) -> None:
        self.calls[call, name] += 1


def _runs_since(script: Script, generation: int) -> bool:
    return script.running is not None and script.running.generation > generation


def _check_not_late(script: Script | None, job: Job) -> None:
    if script is not None and _runs_since(script, job.record.generation):
        raise Temporary("a newer one runs")
