"""What the workspaces of each node are promised, added up one by one as their records change."""

from collections import defaultdict
from dataclasses import dataclass

from mlhub_shared.contracts.workspace import Phase, Wanted, WorkspaceRecord, WorkspaceSpec

MICRO = 1_000_000
"""Parts of a core: whole numbers stay exact, however often something is added and taken away."""


@dataclass(frozen=True)
class Load:
    """A sum of promises."""

    running: int = 0
    """Workspaces that take room."""
    cpu: int = 0
    """Millionths of a core."""
    mem: int = 0
    """Bytes."""

    @classmethod
    def of(cls, spec: WorkspaceSpec) -> "Load":
        """What one workspace is promised; one without a limit shares what is left over."""
        return cls(1, round((spec.cpu_limit or 0) * MICRO), spec.mem_limit or 0)

    def __add__(self, other: "Load") -> "Load":
        return Load(self.running + other.running, self.cpu + other.cpu, self.mem + other.mem)

    def __sub__(self, other: "Load") -> "Load":
        return Load(self.running - other.running, self.cpu - other.cpu, self.mem - other.mem)


@dataclass(frozen=True)
class _Entry:
    user: str
    node: str | None
    """Where it takes room. None: it takes none."""
    load: Load
    has_gpus: bool
    is_queued: bool
    is_wanted_up: bool


class Ledger:
    """Of all workspaces that wait or take room, by name: nobody counts thousands to learn of one."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._loads: dict[str, Load] = {}
        self._queued: set[str] = set()
        self._with_gpus: dict[str, set[str]] = defaultdict(set)
        self._up: dict[str, set[str]] = defaultdict(set)

    def note(self, name: str, record: WorkspaceRecord | None) -> None:
        """Take in a record as it is now; None: there is none."""
        if (old := self._entries.pop(name, None)) is not None:
            self._remove(name, old)
        if record is not None and (record.phase is Phase.QUEUED or record.phase.takes_room):
            self._entries[name] = entry = _entry(record)
            self._add(name, entry)

    def queued(self) -> set[str]:
        """The names of those in line, in all pools."""
        return set(self._queued)

    def load(self, node: str) -> Load:
        """What the workspaces of a node are promised together."""
        return self._loads.get(node, Load())

    def with_gpus(self, node: str) -> set[str]:
        """The names of those that have GPUs of a node."""
        return set(self._with_gpus.get(node, ()))

    def wanted_up(self, user: str) -> set[str]:
        """The names of a user's workspaces that are up, on their way there, or about to start again."""
        return set(self._up.get(user, ()))

    def _add(self, name: str, entry: _Entry) -> None:
        if entry.is_queued:
            self._queued.add(name)
        if entry.is_wanted_up:
            self._up[entry.user].add(name)
        if entry.node is not None:
            self._loads[entry.node] = self.load(entry.node) + entry.load
            if entry.has_gpus:
                self._with_gpus[entry.node].add(name)

    def _remove(self, name: str, entry: _Entry) -> None:
        self._queued.discard(name)
        _drop(self._up, entry.user, name)
        if entry.node is not None:
            self._loads[entry.node] = self.load(entry.node) - entry.load
            _drop(self._with_gpus, entry.node, name)


def _entry(record: WorkspaceRecord) -> _Entry:
    return _Entry(
        user=record.workspace.user,
        node=record.node if record.phase.takes_room else None,
        load=Load.of(record.spec),
        has_gpus=bool(record.gpu_ids),
        is_queued=record.phase is Phase.QUEUED,
        is_wanted_up=record.phase.is_active or record.wanted is Wanted.RUNNING,
    )


def _drop(sets: dict[str, set[str]], key: str, name: str) -> None:
    if (names := sets.get(key)) is not None:
        names.discard(name)
        if not names:
            del sets[key]
