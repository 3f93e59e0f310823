"""Keeping one process running: started again, with growing patience, whenever it ends."""

import asyncio
import signal
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum

from mlhub_standalone.component import Component
from mlhub_standalone.log_files import LogFile
from mlhub_standalone.processes import Identity

FIRST_DELAY, LONGEST_DELAY = 0.2, 10.0
"""Seconds before a component that ended is started again: the first time, and at most."""

STABLE = 30.0
"""Seconds after which a component counts as well again."""


class State(StrEnum):
    """Of a supervised process."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "restarting"
    """Ended; about to be started again."""
    ENDED = "ended"
    """Ended because it was asked to."""


class Supervised:
    """One component and the process that is it now."""

    def __init__(self, component: Component, log: LogFile, changed: Callable[["Supervised"], None]) -> None:
        self.component, self.log = component, log
        self.state = State.STARTING
        self.identity: Identity | None = None
        self.since = datetime.now(UTC)
        self.restarts = 0
        self.last_end = ""
        """How the process before this one ended, in words."""
        self.last_code: int | None = None
        """Its exit code."""
        self._changed = changed
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The component's."""
        return self.component.name

    def start(self) -> None:
        """Begin to keep it running."""
        self._task = asyncio.ensure_future(self._keep_running())

    async def stop(self, within: float) -> None:
        """End the process: SIGTERM, then SIGKILL after so many seconds; not started again."""
        self._stopping.set()
        if self._task is None:
            return
        self._send(signal.SIGTERM)
        done, _ = await asyncio.wait({self._task}, timeout=within)
        if not done:
            self._send(signal.SIGKILL)
            await asyncio.wait({self._task}, timeout=5)

    async def _keep_running(self) -> None:
        delay, loop = FIRST_DELAY, asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            await self._run_once()
            if self._stopping.is_set():
                break
            if loop.time() - began >= STABLE:
                delay = FIRST_DELAY
            self.restarts += 1
            self._become(State.WAITING)
            await self._pause(delay)
            delay = min(delay * 2, LONGEST_DELAY)
        self._become(State.ENDED)

    async def _run_once(self) -> None:
        with self.log.open() as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *self.component.command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=self.component.environment,
                    umask=self.component.umask,
                    # Of its own session: a Ctrl-C at the terminal reaches the launcher alone.
                    start_new_session=True,
                )
            except OSError as error:
                self.last_end = f"could not be started: {error}"
                return
        self.identity = Identity.of(process.pid)
        self._become(State.RUNNING)
        if self._stopping.is_set():
            self._send(signal.SIGTERM)
        code = await process.wait()
        self.identity = None
        self.last_code, self.last_end = code, describe_end(code)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    def _send(self, number: signal.Signals) -> None:
        if self.identity is not None:
            self.identity.send(number)

    def _become(self, state: State) -> None:
        self.state, self.since = state, datetime.now(UTC)
        self._changed(self)


def describe_end(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
