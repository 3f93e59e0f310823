"""`mlhub up`: starts every part, keeps it running, and ends all of it."""

import asyncio
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

from mlhub_shared.runtime import configuration
from mlhub_standalone import credentials, leftovers, nats_config, state_file
from mlhub_standalone.binaries import nats_server
from mlhub_standalone.component import NATS, Component
from mlhub_standalone.components import nats_component, service_components
from mlhub_standalone.console import pass_on, say
from mlhub_standalone.data_dir import make_private, make_socket_folder
from mlhub_standalone.environment import remarks
from mlhub_standalone.errors import LauncherError, WrongSettings
from mlhub_standalone.hints import hints
from mlhub_standalone.instance import Instance, keep
from mlhub_standalone.lock import END, KEEP_WORKSPACES
from mlhub_standalone.log_files import LogFile
from mlhub_standalone.logs import growing
from mlhub_standalone.ports import require_free
from mlhub_standalone.readiness import problem_of
from mlhub_standalone.settings import StandaloneSettings
from mlhub_standalone.shutdown import end_in_order
from mlhub_standalone.supervisor import State, Supervised
from mlhub_standalone.table import duration, render

_POLL = 0.1
_LOGS_EVERY = 10.0
_PASS_ON_EVERY = 0.3
_TOO_OFTEN = 5
"""Ends of one part before it was ever ready: it won't get better by itself."""


class Launcher:
    """One run of an instance, from the first check to the last process. Needs the instance's lock."""

    def __init__(self, instance: Instance, settings: StandaloneSettings, person: Mapping[str, str]) -> None:
        self._instance, self._settings, self._person = instance, settings, person
        self._parts: list[Supervised] = []
        self._logs: dict[str, Iterator[list[str]]] = {}
        self._keep = instance.keep_workspaces
        self._is_up = False
        self._stop, self._hurry = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Start, serve until told to end, end. LauncherError if it can't start."""
        self._listen_to_signals()
        passing_on = asyncio.ensure_future(self._pass_logs_on()) if self._instance.in_container else None
        try:
            if await _unless(self._stop, asyncio.ensure_future(self._start())):
                await self._serve()
        finally:
            await self._end()
            if passing_on is not None:
                passing_on.cancel()
                await asyncio.wait({passing_on})
                await self._pass_logs_on_once()

    async def _start(self) -> None:
        began = time.monotonic()
        for warning in self._instance.warnings:
            say(f"  {warning}")
        require_free(self._instance.port, self._instance.host, "--port")
        if self._instance.ssh_port:
            require_free(self._instance.ssh_port, self._instance.host, "--ssh-port")
        make_socket_folder(self._instance.data)
        keep(self._instance)
        secrets = credentials.make(self._instance.data)
        credentials.take_given(self._instance.data, self._person)
        say(f"  {self._instance.why_backend}")
        for remark in remarks(self._instance, secrets, self._person):
            say(f"  {remark}")
        await self._start_bus(secrets.nats_password)
        say("Starting the services ...")
        await self._until_ready(
            [self._supervise(part) for part in service_components(self._instance, secrets, self._person)]
        )
        self._is_up = True
        self._show(time.monotonic() - began)

    async def _start_bus(self, password: str) -> None:
        binary = await asyncio.to_thread(nats_server, self._settings.nats_server)
        nats_config.write(self._instance.data, self._instance.internal[NATS], password)
        say(f"Starting nats-server {binary} ...")
        await self._until_ready([self._supervise(nats_component(self._instance, binary.path, self._person))])

    def _supervise(self, component: Component) -> Supervised:
        data = self._instance.data
        make_private(data.of(component.name))
        log = LogFile(data.log(component.name))
        log.begin()
        part = Supervised(component, log, self._changed)
        self._parts.append(part)
        part.start()
        return part

    async def _until_ready(self, parts: list[Supervised]) -> None:
        waiting = list(parts)
        deadline, said = time.monotonic() + self._settings.ready_within, False
        while waiting:
            problems = {part: await _problem(part) for part in waiting}
            waiting = [part for part in waiting if problems[part] is not None]
            for part in waiting:
                if part.last_code == configuration.EXIT_CODE:
                    raise WrongSettings(_what_is_wrong(part))
                if part.restarts >= _TOO_OFTEN:
                    raise LauncherError(_why_not(part))
            if waiting and not said and time.monotonic() > deadline:
                said = True
                for part in waiting:
                    say(f"  {part.name} is not ready yet: {problems[part]} (log: {part.log.path})")
            await asyncio.sleep(_POLL)

    def _show(self, seconds: float) -> None:
        rows = [(part.name, part.component.address, "ready", _pid(part), str(part.log.path)) for part in self._parts]
        say("\n" + render(("SERVICE", "ADDRESS", "STATE", "PID", "LOG"), rows))
        say(f"\nML Hub is ready at {self._instance.public_url} after {duration(seconds)}.\n")
        say(hints(self._instance) + "\n")

    async def _serve(self) -> None:
        while not self._stop.is_set():
            for part in self._parts:
                await asyncio.to_thread(part.log.bound)
            await _unless(self._stop, asyncio.ensure_future(asyncio.sleep(_LOGS_EVERY)))

    async def _pass_logs_on(self) -> None:
        """A container's log is what its first process writes, and people look there."""
        while True:
            await self._pass_logs_on_once()
            await asyncio.sleep(_PASS_ON_EVERY)

    async def _pass_logs_on_once(self) -> None:
        for part in self._parts:
            reader = self._logs.setdefault(part.name, growing(part.log.path, from_start=True))
            for line in next(reader):
                pass_on(part.name, line)

    def _changed(self, part: Supervised) -> None:
        is_hopeless = not self._is_up and part.last_code == configuration.EXIT_CODE
        if part.state is State.WAITING and not self._stop.is_set() and not is_hopeless:
            say(f"  {part.name} {part.last_end}; starting it again (log: {part.log.path})")
        elif part.state is State.RUNNING and part.restarts and self._is_up:
            say(f"  {part.name} runs again (pid {_pid(part)})")
        state_file.write(self._instance.data, self._parts)

    async def _end(self) -> None:
        # Nobody asked for the end of a workspace if it is the start that failed.
        keep_workspaces = self._keep or not self._stop.is_set()
        if self._parts:
            say("Ending ML Hub ...")
            ending = end_in_order(
                self._instance,
                self._parts,
                keep_workspaces=keep_workspaces,
                workspaces_within=self._settings.stop_within,
            )
            if not await _unless(self._hurry, asyncio.ensure_future(ending)):
                say("  at once, then")
        await asyncio.gather(*(part.stop(0) for part in self._parts))
        await asyncio.to_thread(leftovers.end, self._instance.data, keep_workspaces=keep_workspaces)
        self._instance.data.state.unlink(missing_ok=True)
        if self._parts:
            say("Ended; workspaces that ran run on." if keep_workspaces else "Ended; nothing is left running.")

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        # An engine ends a container by SIGTERM, also to put a newer one in its place: no reason to stop anybody's work.
        outlived = self._instance.in_container and self._instance.runs_containers
        for number in (END, signal.SIGHUP):
            loop.add_signal_handler(number, self._asked_to_end)
        loop.add_signal_handler(signal.SIGTERM, self._asked_to_keep if outlived else self._asked_to_end)
        loop.add_signal_handler(KEEP_WORKSPACES, self._asked_to_keep)

    def _asked_to_end(self) -> None:
        (self._hurry if self._stop.is_set() else self._stop).set()

    def _asked_to_keep(self) -> None:
        self._keep = True
        self._asked_to_end()


async def _unless(event: asyncio.Event, work: "asyncio.Future[None]") -> bool:
    """Wait for the work, but no longer than until the event; False if it was given up."""
    waiting = asyncio.ensure_future(event.wait())
    both: set[asyncio.Future[Any]] = {waiting, work}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        done = work.done()
    finally:
        for future in both:
            future.cancel()
        await asyncio.wait(both)
    if done:
        await work
    return done


async def _problem(part: Supervised) -> str | None:
    if part.state is not State.RUNNING:
        return part.last_end or "it is being started"
    return await problem_of(part.component)


def _what_is_wrong(part: Supervised) -> str:
    lines = part.log.tail(50)
    # From the last heading on: it may have been started again meanwhile, and said it again.
    begin = max((number for number, line in enumerate(lines) if line == configuration.HEADING), default=-1)
    return "\n".join([f"{part.name} can't start with these settings:", *lines[begin + 1 :]])


def _why_not(part: Supervised) -> str:
    last = "\n".join(f"    {line}" for line in part.log.tail(20))
    return f"{part.name} {part.last_end}, {part.restarts} times. The end of {part.log.path}:\n{last}"


def _pid(part: Supervised) -> str:
    return str(part.identity.pid) if part.identity else "-"
