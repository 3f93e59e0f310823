"""A client's SSH agent, which this machine has a socket of, for the programs in a workspace."""

import asyncio
import contextlib
from pathlib import Path
from typing import Self

from mlhub_shared.tasks import end_tasks
from mlhub_spawner_worker.backends.inside.loopback import InsideListener
from mlhub_spawner_worker.backends.inside.place import Place
from mlhub_spawner_worker.entry import Accept, EntryError, Joint


class AgentForward:
    """A socket in the workspace whose connections go to the agent."""

    def __init__(self, listener: InsideListener) -> None:
        self._listener = listener

    @property
    def path(self) -> str:
        """In the workspace."""
        return self._listener.address

    @classmethod
    async def open(cls, place: Place, agent: Path) -> Self:
        """Offer the agent of this socket; EntryError if that can't be."""

        def arrived(accept: Accept, _: tuple[str, int]) -> asyncio.Task[None]:
            return asyncio.ensure_future(_carry(accept, agent))

        return cls(await InsideListener.open(place, None, arrived))

    def close(self) -> None:
        """Offer it no more."""
        self._listener.close()

    async def wait(self) -> None:
        """Return once it is closed; what still asks the agent is cut off."""
        await self._listener.wait()
        await end_tasks(*self._listener.calls)


async def _carry(accept: Accept, agent: Path) -> None:
    with contextlib.suppress(EntryError, OSError):
        _, call = await asyncio.get_running_loop().create_unix_connection(Joint, str(agent))
        await call.join(accept)
