"""What deleted users leave behind."""

import asyncio
from datetime import UTC, datetime

from mlhub_shared.contracts.commands import DeleteWorkspace
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.workspace import Phase, Wanted, WorkspaceRecord
from tests.cleanup.conftest import Seen, Start, living, soon
from tests.support.waiting import until_async


def deleted(user: str = "alice") -> Event:
    return Event(kind=EventKind.USER_DELETED, user=user, requester="user:admin", correlation_id="c9")


async def deletion(seen: Seen, value: WorkspaceRecord) -> DeleteWorkspace:
    async def sent() -> bool:
        return isinstance(await seen.command(value), DeleteWorkspace)

    await until_async(sent)
    command = await seen.command(value)
    assert isinstance(command, DeleteWorkspace)
    return command


async def test_every_workspace_of_a_deleted_user_is_deleted(seen: Seen, start: Start) -> None:
    await start()
    running = await seen.put(living(until=None))
    stopped = await seen.put(living(server="gpu1", until=None, phase=Phase.STOPPED))
    queued = await seen.put(living(server="next", until=None, phase=Phase.QUEUED, node=None))
    other = await seen.put(living("bob", until=None))
    event = deleted()
    await seen.bus.emit(event)
    for value in (running, stopped, queued):
        command = await deletion(seen, value)
        assert command.generation > value.generation
        assert (command.requester, command.correlation_id) == ("user:admin", "c9")
    assert await seen.command(other) is None


async def test_a_deletion_while_the_service_is_dead_is_done_on_its_return(seen: Seen, start: Start) -> None:
    value = await seen.put(living(until=None))
    await seen.bus.emit(deleted())
    await start()
    await deletion(seen, value)


async def test_a_second_delivery_is_the_same_command(seen: Seen, start: Start) -> None:
    await start()
    value = await seen.put(living(until=None))
    event = deleted()
    await seen.bus.emit(event)
    first = await deletion(seen, value)
    await seen.forget_message_ids()
    await seen.bus.emit(event)
    marker = await seen.put(living("bob", until=None))
    await seen.bus.emit(deleted("bob"))
    await deletion(seen, marker)
    again = await deletion(seen, value)
    assert again.id == first.id


async def test_somebody_new_of_the_same_name_keeps_what_is_his(seen: Seen, start: Start) -> None:
    old = deleted()
    newcomer = await seen.put(living(until=None, requested_at=soon(5)))
    leaving = await seen.put(living(server="leaving", until=None, wanted=Wanted.DELETED, phase=Phase.STOPPING))
    await seen.bus.emit(old)
    left = await seen.put(living(server="old", until=None))
    await start()
    await deletion(seen, left)
    assert await seen.command(newcomer) is None
    assert await seen.command(leaving) is None


async def test_a_newer_command_than_the_record_tells_of_does_not_save_a_workspace(seen: Seen, start: Start) -> None:
    await start()
    value = await seen.put(living(until=None))
    ahead = int(datetime.now(UTC).timestamp() * 1_000_000) + 60_000_000
    await seen.bus.send(deletion_before(value, ahead), pool=value.pool, node=value.node)
    await seen.bus.emit(deleted())
    await asyncio.sleep(0.5)
    await seen.put(value.model_copy(update={"generation": ahead}))

    async def newer() -> bool:
        command = await seen.command(value)
        return command is not None and command.generation == ahead + 1

    await until_async(newer)


def deletion_before(value: WorkspaceRecord, generation: int) -> DeleteWorkspace:
    return DeleteWorkspace(workspace=value.workspace, generation=generation, requester="user:x")


async def test_events_that_can_not_be_read_stop_nothing(seen: Seen, start: Start) -> None:
    await start()
    value = await seen.put(living(until=None))
    subject = seen.bus.subjects.event(EventKind.USER_DELETED)
    for data in (b"", b"[]", b'{"kind":"user-deleted","requester":"x"}'):
        await seen.bus.connection.publish(subject, data)
    await seen.bus.emit(deleted())
    await deletion(seen, value)
