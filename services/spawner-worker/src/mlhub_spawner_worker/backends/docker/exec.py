"""The way into a running container."""

import asyncio
import contextlib
from collections.abc import Coroutine
from signal import Signals
from typing import Any

from aiodocker.execs import Exec

from mlhub_shared.errors import MLHubError
from mlhub_spawner_worker.backends.docker import exec_script
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.errors import translated
from mlhub_spawner_worker.backends.docker.exec_agent import AgentForward
from mlhub_spawner_worker.backends.docker.exec_link import ExecLink, Place
from mlhub_spawner_worker.backends.docker.exec_loopback import ContainerLoopback
from mlhub_spawner_worker.entry import Child, Client, EntryError, Loopback, Order, Size

_LOST = 255
"""What ssh itself ends with when a connection is lost."""
_LOOKS = (0.02, 0.08, 0.4, 1.5)
"""Seconds after which to look again how a program has ended whose streams have: the engine ends them after it."""
_PIPE_PATIENCE = 0.5
"""Seconds for a program to notice a broken pipe before it is hung up."""


class ContainerEntry:
    """How to enter a container; the engine is asked nothing before something is run."""

    def __init__(self, engine: Engine, container: str, *, home: str | None) -> None:
        """Programs start in `home`, if it is there; None: where the image says."""
        self._place, self._home = Place(engine, container), home
        self._loopback = ContainerLoopback(self._place)

    @property
    def loopback(self) -> Loopback:
        """The container's own."""
        return self._loopback

    async def run(self, order: Order, client: Client) -> Child:
        """Run a program as the container's user; EntryError if that can't be."""
        environment = dict(order.environment)
        if order.terminal is not None:
            environment["TERM"] = order.terminal.type
        agent = await self._forward_agent(order, client)
        if agent is not None:
            environment["SSH_AUTH_SOCK"] = agent.path
        try:
            child = await ContainerChild.open(
                self._place,
                exec_script.program(order, self._home),
                client,
                environment=environment,
                has_terminal=order.terminal is not None,
            )
        except BaseException:
            if agent is not None:
                agent.close()
            raise
        child.agent = agent
        return child

    async def _forward_agent(self, order: Order, client: Client) -> AgentForward | None:
        if order.agent is None:
            return None
        try:
            return await AgentForward.open(self._place, order.agent)
        except EntryError as error:
            client.write(f"the SSH agent can't be forwarded: {error}\r\n".encode(), is_error=True)
            return None


class ContainerChild(ExecLink):
    """A program that runs in a container, leader of a session of its own."""

    def __init__(self, place: Place, exec_: Exec, client: Client, *, has_terminal: bool) -> None:
        super().__init__(place, exec_, client, has_terminal=has_terminal)
        self.agent: AgentForward | None = None
        """Ends with the program."""
        self._controls: set[asyncio.Task[None]] = set()
        self._in_turn = asyncio.Lock()
        self._size: Size | None = None
        self._is_closing = False
        self._unwanted_since: float | None = None
        self._is_unwanted = False

    def close_output(self) -> None:
        """Have the next thing it says break its pipe."""
        self._is_unwanted = True

    def resize(self, size: Size) -> None:
        """Tell its terminal the new size."""
        if self._has_terminal:
            self._size = size
            self._control(self._resize())

    def signal(self, number: Signals) -> None:
        """Send a signal to its group, if it still runs."""
        if not self._has_ended:
            self._control(self._do(exec_script.kill(number, self.group)))

    def close(self) -> None:
        """Hang up: what the program left behind on purpose stays, all else of it ends."""
        if not self._has_ended and not self._is_closing:
            self._is_closing = True
            self._control(self._hang_up())

    async def wait(self) -> int:
        """How it ended; the engine tells a signal as 128 and its number, as shells do, and so do we."""
        await self.ended()
        status = None if self._is_closing else await self._final_status()
        if status is None and not self._is_closing:
            # Its streams are lost with the engine, so it is of no use to anybody any more.
            self._client.write(b"the connection to the workspace is lost\r\n", is_error=True)
            self._control(self._do(exec_script.kill(Signals.SIGHUP, self.group)))
        while self._controls:
            await asyncio.wait(self._controls)
        if self.agent is not None:
            self.agent.close()
            await self.agent.wait()
        return _LOST if status is None else status

    async def _final_status(self) -> int | None:
        with contextlib.suppress(MLHubError):
            for delay in (*_LOOKS, 0):
                if (status := await self._status()) is not None:
                    return status
                await asyncio.sleep(delay)
        return None

    def _is_wanted(self) -> bool:
        if not self._is_unwanted:
            return True
        now = asyncio.get_running_loop().time()
        if self._unwanted_since is None:
            self._unwanted_since = now
            self._control(self._do(exec_script.break_pipe(self.group)))
        elif now - self._unwanted_since > _PIPE_PATIENCE:
            self.close()
        return False

    def _control(self, work: Coroutine[Any, Any, None]) -> None:
        async def in_turn() -> None:
            async with self._in_turn:
                await work

        task = asyncio.ensure_future(in_turn())
        self._controls.add(task)
        task.add_done_callback(self._controls.discard)

    async def _resize(self) -> None:
        if self._size is None:
            return  # one before has done it
        (columns, rows, *_), self._size = self._size, None
        with contextlib.suppress(MLHubError), translated("resize a terminal"):
            await self._exec.resize(h=rows, w=columns)

    async def _do(self, command: list[str]) -> None:
        # What it said may wait for a slow client long after its end, and its number be another's by then.
        with contextlib.suppress(MLHubError):
            if await self._status() is None:
                await self._place.do(command)

    async def _hang_up(self) -> None:
        await self._do(exec_script.kill(Signals.SIGHUP, self.group))
        self.let_go()
