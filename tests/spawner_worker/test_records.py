"""Records are changed by whoever has last seen them: what he has not seen shows when he writes."""

from functools import partial

import pytest

from mlhub_shared.bus import Bus, Table
from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord
from mlhub_spawner_worker.records import RecordStore
from mlhub_spawner_worker.telling import Teller
from tests.support.makers import record
from tests.support.workers import People

NAME = record().name


@pytest.fixture
def late(bus: Bus) -> RecordStore:
    """One whose table never learns of anything."""
    return RecordStore(bus, Table(bus.workspaces), Teller(bus))


def saying(message: str, old: WorkspaceRecord | None) -> WorkspaceRecord | None:
    return old.model_copy(update={"message": message}) if old is not None else None


def being(phase: Phase, _: WorkspaceRecord | None) -> WorkspaceRecord:
    return record(phase=phase)


async def test_what_was_last_seen_is_not_asked_for_again(bus: Bus, late: RecordStore) -> None:
    before = bus.connection.client.stats["out_msgs"]
    for phase in (Phase.PREPARING, Phase.STARTING):
        await late.change(NAME, partial(being, phase))
    # Each time the record and its event.
    assert bus.connection.client.stats["out_msgs"] - before == 4


async def test_a_decision_on_what_is_over_is_made_anew(bus: Bus, late: RecordStore, people: People) -> None:
    await late.change(NAME, lambda _: record(phase=Phase.PREPARING))
    await bus.workspaces.put(NAME, record(phase=Phase.READY))
    changed = await late.change(NAME, lambda old: saying("heard", old))
    assert changed == await people.record(NAME) == record(phase=Phase.READY, message="heard")


async def test_that_nothing_is_to_be_done_is_decided_on_the_newest(bus: Bus, late: RecordStore) -> None:
    await late.change(NAME, lambda _: record(phase=Phase.READY))
    await bus.workspaces.put(NAME, record(phase=Phase.READY, generation=5))
    changed = await late.change(NAME, lambda old: old if old and old.generation == 1 else saying("heard", old))
    assert changed == record(phase=Phase.READY, generation=5, message="heard")


async def test_no_deletion_is_told_that_was_taken_back(bus: Bus, late: RecordStore, people: People) -> None:
    await late.change(NAME, lambda _: record(phase=Phase.STOPPING, erasing=True))
    wanted = record(phase=Phase.QUEUED, generation=2)
    await bus.workspaces.put(NAME, wanted)
    assert await late.change(NAME, lambda old: None if old and old.erasing else old) == wanted
    assert EventKind.WORKSPACE_DELETED not in [event.kind for event in await people.history(NAME)]


async def test_what_another_has_made_is_found(bus: Bus, late: RecordStore) -> None:
    theirs = record(phase=Phase.READY, generation=7)
    await bus.workspaces.put(NAME, theirs)
    changed = await late.change(NAME, lambda old: old or record(phase=Phase.QUEUED))
    assert changed == theirs
