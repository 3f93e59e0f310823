"""A client's SSH agent, which this machine has a socket of, for the programs in a container."""

import asyncio
import contextlib
from pathlib import Path
from typing import Self

from mlhub_spawner_worker.backends.docker.exec_link import Place
from mlhub_spawner_worker.backends.docker.exec_loopback import ContainerListener
from mlhub_spawner_worker.entry import Accept, EntryError, Joint


class AgentForward:
    """A socket in the container whose connections go to the agent."""

    def __init__(self, listener: ContainerListener, calls: set[asyncio.Task[None]]) -> None:
        self._listener, self._calls = listener, calls

    @property
    def path(self) -> str:
        """In the container."""
        return self._listener.address

    @classmethod
    async def open(cls, place: Place, agent: Path) -> Self:
        """Offer the agent of this socket; EntryError if that can't be."""
        calls: set[asyncio.Task[None]] = set()

        def arrived(accept: Accept, _: tuple[str, int]) -> None:
            task = asyncio.ensure_future(_carry(accept, agent))
            calls.add(task)
            task.add_done_callback(calls.discard)

        return cls(await ContainerListener.open(place, None, arrived), calls)

    def close(self) -> None:
        """Offer it no more."""
        self._listener.close()

    async def wait(self) -> None:
        """Return once it is closed; what still asks the agent is cut off."""
        await self._listener.wait()
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls)


async def _carry(accept: Accept, agent: Path) -> None:
    with contextlib.suppress(EntryError, OSError):
        _, call = await asyncio.get_running_loop().create_unix_connection(Joint, str(agent))
        await call.join(accept)
