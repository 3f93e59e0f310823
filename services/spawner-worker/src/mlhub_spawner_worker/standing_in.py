"""What is asked of a node that is away, taken in by a neighbour.

Nothing of it can be done without that node, but it can be written down: who starts a workspace is told that it waits,
who changes his mind is out of the line at once, and a stop or a deletion stands on the record, where the node finds it
when it is back. In place of a node that never comes back, a worker of its name is started elsewhere: that one finds
nothing there, and so is done with all of it.
"""

import asyncio
import time

import structlog

from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.errors import MLHubError
from mlhub_shared.tasks import end_tasks
from mlhub_spawner_worker.driver import Tools
from mlhub_spawner_worker.lifecycle import Place
from mlhub_spawner_worker.nodes import Nodes
from mlhub_spawner_worker.workspaces import Workspaces

log = structlog.get_logger(__name__)

AWAY_AFTER = 5.0
"""Seconds without a lease until somebody stands in: a restart takes less."""

_LOOK = 1.0


class StandIn:
    """Follows the commands for every node that is away, if it is for this worker to speak for the pool."""

    def __init__(self, tools: Tools, nodes: Nodes, workspaces: Workspaces, place: Place) -> None:
        self._tools, self._nodes, self._workspaces, self._place = tools, nodes, workspaces, place
        self._gone_since: dict[str, float] = {}
        self._following: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Stand in until cancelled."""
        records = self._tools.store.all()
        self._nodes.remember({record.node for record in records if record.node and record.pool == self._place.pool})
        try:
            while True:
                await self._look(time.monotonic())
                await asyncio.sleep(_LOOK)
        finally:
            await end_tasks(*self._following.values())

    async def _look(self, now: float) -> None:
        away = self._nodes.away() if self._nodes.is_spokesman(None) else set()
        self._gone_since = {node: self._gone_since.get(node, now) for node in away}
        for node in self._following.keys() - away:
            log.info("node.back", node=node)
            await end_tasks(self._following.pop(node))
        for node in away - self._following.keys():
            if now - self._gone_since[node] >= AWAY_AFTER:
                log.warning("node.away", node=node)
                self._following[node] = asyncio.ensure_future(self._follow(node))

    async def _follow(self, node: str) -> None:
        backoff = Backoff(most=10)
        while True:
            try:
                async for command, sequence in self._tools.bus.overhear(self._place.pool, node):
                    await self._workspaces.stand_in(command, sequence, node)
                    backoff.reset()
            except MLHubError as error:
                log.warning("node.not_stood_in_for", node=node, error=str(error))
            except Exception:
                log.exception("node.stand_in_failed", node=node)
            await backoff.sleep()
