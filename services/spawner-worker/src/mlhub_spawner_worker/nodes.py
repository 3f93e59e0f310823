"""The nodes of this worker's pool, as their leases tell of them; its own as it is."""

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path

from mlhub_shared.bus import Entry, Table
from mlhub_shared.contracts.services import WorkerLease
from mlhub_shared.errors import Permanent
from mlhub_spawner_worker.lifecycle import Place
from mlhub_spawner_worker.placement import Node

_LOOK = 0.5
"""Seconds between two looks at a lease of this node's name."""


def identity_of(data_dir: Path) -> str:
    """What tells the node whose data these are from any other; made when missing."""
    file = data_dir / "identity"
    known = file.read_text() if file.exists() else ""
    if not known:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = uuid.uuid4().hex
        file.write_text(known)
    return known


async def take_name(leases: Table[WorkerLease], own: WorkerLease) -> None:
    """Permanent if another node of this name lives: each would take the other's workspaces for its own dead ones.

    Likewise if another worker is this replica of it: nobody would know which of them a lease is of. One that lives
    renews its lease before long; that of one that is gone is waited out, but for a worker's own from before.
    """
    await leases.synced()
    seen: dict[str, int] = {}
    while found := _of_others(leases, own):
        if lives := [key for key, revision in found.items() if seen.get(key, revision) != revision]:
            raise Permanent(_conflict(own, leases.get(lives[0])))
        seen |= found
        await asyncio.sleep(_LOOK)


def _of_others(leases: Table[WorkerLease], own: WorkerLease) -> dict[str, int]:
    """The leases of another node or worker of this name, and how new each is."""
    entries = ((key, entry) for key, entry in leases.items() if entry.value.node == own.node)
    return {key: entry.revision for key, entry in entries if _is_other(entry.value, own)}


def _is_other(lease: WorkerLease, own: WorkerLease) -> bool:
    return not is_same(lease.identity, own.identity) or (lease.key == own.key and not is_same(lease.data, own.data))


def is_same(one: str, other: str) -> bool:
    """Whether two identities may be of the same: one that is not told may be anybody's, and so its marks."""
    (name, _, marks), (other_name, _, other_marks) = one.partition("#"), other.partition("#")
    if not marks or not other_marks:
        return name == other_name or not (name and other_name)
    return name == other_name and not set(marks.split(",")).isdisjoint(other_marks.split(","))


def _conflict(own: WorkerLease, entry: Entry[WorkerLease] | None) -> str:
    if entry is not None and is_same(entry.value.identity, own.identity):
        return (
            f"another worker is the replica {own.replica} of the node {own.node}: give each a name of its own by "
            "MLHUB_SPAWNER_WORKER_REPLICA"
        )
    what = "on another cluster or namespace" if own.replica else "with data of its own"
    return f"another worker, {what}, is the node {own.node}: give each a name of its own by MLHUB_SPAWNER_WORKER_NODE"


class Nodes:
    """Who is up, and who has been."""

    def __init__(
        self, leases: Table[WorkerLease], place: Place, own: Callable[[], Node], leads: Callable[[], bool]
    ) -> None:
        """`leads`: whether this worker is the one of its node that speaks."""
        self._leases, self._place, self._own, self._leads = leases, place, own, leads
        self._seen: dict[str, Node] = {}
        self._remembered: set[str] = set()

    @property
    def own(self) -> Node:
        """This worker's node."""
        return self._own()

    def up(self) -> dict[str, Node]:
        """The nodes with a worker that lives, this one among them, by name."""
        leases = (lease for lease in self._leases.values() if lease.pool == self._place.pool)
        return {lease.node: Node.of(lease) for lease in leases} | {self._place.node: self._own()}

    def seen(self) -> list[Node]:
        """Those that are up, and those that have been since this worker started: they may come back."""
        return list((self._seen | self.up()).values())

    def away(self) -> set[str]:
        """Those that have been up and are not now; none while nobody can say."""
        known = self._remembered | self._seen.keys()
        return known - self.up().keys() if self._leases.is_live else set()

    def remember(self, names: set[str]) -> None:
        """Nodes that have been up before this worker was."""
        self._remembered |= names

    def is_spokesman(self, node: str | None) -> bool:
        """Whether it is for this worker to speak of what waits for that node (None: for any)."""
        up = self.up()
        return self._leads() and self._place.node == (node if node in up else min(up))

    async def follow(self, look: Callable[[], None]) -> None:
        """Call `look` whenever a lease comes, goes or tells something new, until cancelled."""
        with self._leases.changes() as changes:
            async for _ in changes:
                self._seen |= self.up()
                look()
