"""The nodes of this worker's pool, as their leases tell of them; its own as it is."""

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path

from mlhub_shared.bus import Table
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


async def take_name(leases: Table[WorkerLease], node: str, identity: str) -> None:
    """Permanent if another node of this name lives: each would take the other's workspaces for its own dead ones.

    One that lives renews its lease before long; that of one that is gone is waited out.
    """
    await leases.synced()
    seen: dict[str, int] = {}
    while found := _of_others(leases, node, identity):
        if any(seen.get(key, revision) != revision for key, revision in found.items()):
            raise Permanent(
                f"another worker, with data of its own, is the node {node}: give each a name of its own by "
                "MLHUB_SPAWNER_WORKER_NODE"
            )
        seen |= found
        await asyncio.sleep(_LOOK)


def _of_others(leases: Table[WorkerLease], node: str, identity: str) -> dict[str, int]:
    """The leases of another node of this name, and how new each is."""
    entries = ((key, entry) for key, entry in leases.items() if entry.value.node == node)
    return {key: entry.revision for key, entry in entries if entry.value.identity not in ("", identity)}


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
