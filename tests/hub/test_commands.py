"""What is made of a record and the last command, and generations."""

import pytest

from mlhub_hub.commands import Commands, fold
from mlhub_shared.bus import Bus
from mlhub_shared.contracts.commands import Command
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord
from mlhub_shared.errors import Conflict
from tests.support.makers import NOW, delete, record, spawn, stop, workspace


@pytest.mark.parametrize(
    ("known", "command", "status"),
    [
        (None, None, 0),
        (None, spawn(), None),
        (None, stop(), 0),
        (None, delete(), 0),
        (record(phase=Phase.STOPPED, generation=3), spawn(generation=4), None),
        (record(phase=Phase.STOPPED, generation=3), spawn(generation=3), 0),
        (record(phase=Phase.FAILED, generation=3), spawn(generation=2), 1),
        (record(phase=Phase.FAILED, generation=3), None, 1),
        (record(phase=Phase.QUEUED), None, None),
        (record(phase=Phase.STARTING), None, None),
        (record(phase=Phase.READY, generation=3), stop(generation=4), None),
        (record(phase=Phase.STOPPING, generation=4), stop(generation=4), 0),
    ],
)
def test_no_answer_is_never_dead(known: WorkspaceRecord | None, command: Command | None, status: int | None) -> None:
    assert fold(known, command) is status or fold(known, command) == status


@pytest.fixture
async def commands(bus: Bus) -> Commands:
    table = bus.start_table(bus.workspaces)
    await table.synced()
    return Commands(bus, table, pool="default", clock=lambda: NOW)


async def test_generations_grow_although_the_clock_stands_still(bus: Bus, commands: Commands) -> None:
    async def build(generation: int) -> Command:
        return spawn(generation=generation)

    issued = [(await commands.issue(workspace(), build)).generation for _ in range(3)]
    assert issued == sorted(set(issued))
    last = await bus.last_command("default", workspace().name)
    assert last is not None
    assert last[0].generation == issued[-1]


async def test_a_command_of_somebody_ahead_of_our_clock_is_overtaken(bus: Bus, commands: Commands) -> None:
    ahead = 10**18
    await bus.send(stop(generation=ahead), pool="default")

    async def build(generation: int) -> Command:
        return spawn(generation=generation)

    assert (await commands.issue(workspace(), build)).generation == ahead + 1


async def test_an_earlier_wish_never_overtakes_a_later_one(commands: Commands) -> None:
    async def late(generation: int) -> Command:
        return spawn(generation=generation)

    async def early(generation: int) -> Command:
        # Somebody asks for something else while this one is still being made.
        await commands.issue(workspace(), late)
        return stop(generation=generation)

    with pytest.raises(Conflict):
        await commands.issue(workspace(), early)
    last = await commands.last(workspace())
    assert last is not None
    assert last.kind == "spawn"
