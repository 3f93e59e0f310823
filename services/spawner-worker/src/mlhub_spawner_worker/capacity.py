"""Who comes next when there is room. Pure: the claim itself is a compare-and-set on the record."""

from collections.abc import Iterable

from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord
from mlhub_spawner_worker.lifecycle import Place


def running(records: Iterable[WorkspaceRecord], node: str) -> int:
    """How many workspaces take room on a node."""
    return sum(record.phase.takes_room and record.node == node for record in records)


def next_in_line(records: Iterable[WorkspaceRecord], *, place: Place, capacity: int | None) -> WorkspaceRecord | None:
    """The queued workspace this worker is to claim now; None if there is no room, or nobody waits for this one.

    The oldest request comes first. One that has been here before has its data here, and waits for this node alone.
    """
    known = list(records)
    if capacity is not None and running(known, place.node) >= capacity:
        return None
    waiting = (
        record
        for record in known
        if record.phase is Phase.QUEUED and record.pool == place.pool and record.node in (None, place.node)
    )
    return min(waiting, key=lambda record: (record.sequence, record.name), default=None)
