"""Which machines have a worker that answers, which do not, and how an administrator empties one."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from mlhub_shared.bus import Bus, Changes, Table
from mlhub_shared.contracts.message import new_id
from mlhub_shared.contracts.queries import DRAIN_NODE, DrainNode
from mlhub_shared.contracts.services import WorkerLease, by_node
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord

AWAY_AFTER = timedelta(seconds=15)
"""How long a worker may be gone before its workspaces are called unreachable: a restart takes less."""

_DRAINED_WITHIN = timedelta(seconds=5)


class NodeState(StrEnum):
    """What an administrator sees at one look."""

    UP = "up"
    DRAINING = "draining"
    AWAY = "away"


@dataclass(frozen=True)
class Node:
    """A machine, as its worker or the records of its workspaces tell of it."""

    name: str
    state: NodeState
    lease: WorkerLease | None
    """None: its worker does not answer."""
    workspaces: int
    """That are wanted up there."""


class Nodes:
    """Follows the workers' leases, and tells when a node is called away or is back; nothing else they say."""

    def __init__(self, workers: Table[WorkerLease], *, away_after: timedelta = AWAY_AFTER) -> None:
        self._workers, self._away_after = workers, away_after.total_seconds()
        self._present = self._seen()
        self._since = asyncio.get_running_loop().time()
        self._gone: dict[str, float] = {}
        self._listeners: set[Changes] = set()

    def is_away(self, node: str | None) -> bool:
        """Whether that node's worker has been gone for longer than a restart takes; False while nobody can say."""
        if node is None or not self._workers.is_live or node in self._present:
            return False
        return asyncio.get_running_loop().time() - self._gone.get(node, self._since) >= self._away_after

    def is_unreachable(self, record: WorkspaceRecord | None) -> bool:
        """Whether a workspace is up as far as anybody knows, on a node that is away."""
        if record is None or not record.phase.is_active or record.phase is Phase.QUEUED:
            return False
        return self.is_away(record.node)

    @contextmanager
    def changes(self) -> Iterator[Changes]:
        """Follow the nodes that go away and come back."""
        changes = Changes(set())
        self._listeners.add(changes)
        try:
            yield changes
        finally:
            self._listeners.discard(changes)

    async def run(self) -> None:
        """Follow until cancelled."""
        with self._workers.changes() as changes:
            async for _ in changes:
                self._look()

    def _seen(self) -> set[str]:
        return {lease.node for lease in self._workers.values()}

    def _look(self) -> None:
        before, self._present = self._present, self._seen()
        for name in self._present - before:
            self._gone.pop(name, None)
            self._tell(name)
        loop = asyncio.get_running_loop()
        for name in before - self._present:
            self._gone[name] = loop.time()
            loop.call_later(self._away_after, self._tell, name)
            self._tell(name)

    def _tell(self, name: str) -> None:
        for listener in self._listeners:
            listener.add({name})


def unreachable(record: WorkspaceRecord) -> str:
    """Why nobody can say how a workspace on a node that is away is."""
    return (
        f"Its machine {record.node} does not answer. The workspace may well be running there: "
        "it is back as soon as the machine is."
    )


def all_nodes(leases: list[WorkerLease], records: list[WorkspaceRecord]) -> list[Node]:
    """Every node there is or that has workspaces, by name."""
    counts: dict[str, int] = {}
    for record in records:
        if record.node is not None and record.phase.takes_room:
            counts[record.node] = counts.get(record.node, 0) + 1
    by_name = by_node(leases)
    return [
        Node(name, _state_of(by_name.get(name)), by_name.get(name), counts.get(name, 0))
        for name in sorted(by_name.keys() | counts.keys())
    ]


async def drain(bus: Bus, node: str, *, draining: bool, requester: str) -> WorkerLease:
    """Have a node take no more workspaces, or take them again; MLHubError if its worker does not answer."""
    query = DrainNode(draining=draining, requester=requester, correlation_id=new_id())
    return await bus.ask(DRAIN_NODE, query, WorkerLease, node=node, timeout=_DRAINED_WITHIN)


def _state_of(lease: WorkerLease | None) -> NodeState:
    if lease is None:
        return NodeState.AWAY
    return NodeState.DRAINING if lease.draining else NodeState.UP
