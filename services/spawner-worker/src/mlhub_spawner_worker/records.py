"""The workspaces' records on the bus: changed by compare-and-set, each change of phase told in the audit stream."""

from collections.abc import Callable

from mlhub_shared.bus import Bus, Entry, Table
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord
from mlhub_shared.errors import Conflict
from mlhub_spawner_worker.capacity import Ledger, Load
from mlhub_spawner_worker.telling import Teller, deletion_event, phase_event

Decide = Callable[[WorkspaceRecord | None], WorkspaceRecord | None]
"""From the record as it is to the record as it shall be; None: there is none. Called again after a conflict."""


class RecordStore:
    """Reads and changes records.

    A record is written before its event, so that no event tells what did not happen; an event that a crash swallowed
    is made up for by `ensure_told`, which knows it by its id. Only a deletion is told first: afterwards nothing would
    remind anybody.
    """

    def __init__(self, bus: Bus, table: Table[WorkspaceRecord], teller: Teller) -> None:
        self._bucket, self._table, self._teller = bus.workspaces, table, teller
        self._ahead: dict[str, Entry[WorkspaceRecord]] = {}
        self._ledger = Ledger()
        self._watchers: list[Callable[[str], None]] = []

    def on_change(self, watcher: Callable[[str], None]) -> None:
        """Have `watcher` called with the name of each record that changes; an own change is not told yet then."""
        self._watchers.append(watcher)

    async def get(self, name: str) -> WorkspaceRecord | None:
        """The record as the bus has it now; BusUnavailable if that can't be known."""
        entry = await self._bucket.get(name)
        if entry is None:
            return None
        # The table's own, if it is the same: of thousands, whoever asked keeps one for as long as its workspace runs.
        seen = self._table.get(name)
        return seen.value if seen is not None and seen.revision == entry.revision else entry.value

    def known(self, name: str) -> WorkspaceRecord | None:
        """The record as last seen, own changes included."""
        entry = self._seen(name)
        return entry.value if entry else None

    def all(self) -> list[WorkspaceRecord]:
        """All records as last seen, own changes included."""
        names = {name for name, _ in self._table.items()} | set(self._ahead)
        found = (self.known(name) for name in names)
        return [record for record in found if record is not None]

    def queued(self) -> list[WorkspaceRecord]:
        """Those in line, in all pools, the oldest first."""
        waiting = (record for record in self._those(self._ledger.queued()) if record.phase is Phase.QUEUED)
        return sorted(waiting, key=lambda record: (record.sequence, record.name))

    def load(self, node: str) -> Load:
        """What the workspaces that take room on a node are promised."""
        return self._ledger.load(node)

    def with_gpus(self, node: str) -> list[WorkspaceRecord]:
        """Those that have GPUs of a node."""
        return self._those(self._ledger.with_gpus(node))

    def wanted_up(self, user: str) -> list[WorkspaceRecord]:
        """A user's workspaces that are up, or wanted up."""
        return self._those(self._ledger.wanted_up(user))

    def note(self, name: str) -> None:
        """Learn that a record has changed; whoever follows the table says so for what others write."""
        self._ledger.note(name, self.known(name))
        for watcher in self._watchers:
            watcher(name)

    def start_over(self) -> None:
        """Trust the table alone: the bus has been away, and may have lost what it knew."""
        self._ahead.clear()
        self._ledger = Ledger()
        for record in self.all():
            self._ledger.note(record.name, record)

    async def change(self, name: str, decide: Decide) -> WorkspaceRecord | None:
        """Bring a record where `decide` wants it, whoever else writes; returns it as it is then.

        It is read only where what was last seen won't do: a write shows whether that was the newest.
        """
        tried: WorkspaceRecord | None = None
        entry, is_newest = self._seen(name), False
        while True:
            old = entry.value if entry else None
            if tried is not None and old == tried:
                # The write had arrived and only its answer was lost.
                break
            new = decide(old)
            if is_newest and new == old:
                return old
            if is_newest or _shows(old, new):
                try:
                    await self._write(name, entry, new)
                except Conflict:
                    tried = new
                else:
                    break
            entry, is_newest = await self._bucket.get(name), True
        self.note(name)
        if new is not None and _is_news(old, new):
            await self._teller.tell(name, phase_event(new))
        return new

    async def ensure_told(self, record: WorkspaceRecord) -> None:
        """Tell the record's phase if a crash kept it from being told."""
        event = phase_event(record)
        if not await self._teller.was_told(event, record.name):
            await self._teller.tell(record.name, event)

    def _those(self, names: set[str]) -> list[WorkspaceRecord]:
        found = (self.known(name) for name in names)
        return [record for record in found if record is not None]

    def _seen(self, name: str) -> Entry[WorkspaceRecord] | None:
        entry, own = self._table.get(name), self._ahead.get(name)
        if own is not None and own.revision <= self._table.revision:
            del self._ahead[name]
        elif own is not None and (entry is None or own.revision > entry.revision):
            return own
        return entry

    async def _write(self, name: str, entry: Entry[WorkspaceRecord] | None, new: WorkspaceRecord | None) -> None:
        if entry is not None and _is_erased(entry.value, new):
            await self._teller.tell_first(name, deletion_event(entry.value))
        if new is None:
            await self._bucket.delete(name, last=entry.revision if entry else None)
            self._ahead.pop(name, None)
            return
        if entry is None:
            revision = await self._bucket.create(name, new)
        else:
            revision = await self._bucket.update(name, new, last=entry.revision)
        self._ahead[name] = Entry(new, revision)


def _shows(old: WorkspaceRecord | None, new: WorkspaceRecord | None) -> bool:
    """Whether the write of a decision shows by itself that it was made on the newest record."""
    return new != old and not (old is not None and _is_erased(old, new))


def _is_erased(old: WorkspaceRecord, new: WorkspaceRecord | None) -> bool:
    return old.erasing and (new is None or not new.erasing)


def _is_news(old: WorkspaceRecord | None, new: WorkspaceRecord) -> bool:
    if old is None or new.phase is not old.phase or new.phase_since != old.phase_since:
        return True
    return new.generation != old.generation and new.phase.is_active
