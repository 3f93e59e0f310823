"""The bus against a real nats-server, also one that is killed."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from mlhub_shared.bus import Bus, Delivery, Lease
from mlhub_shared.contracts.commands import Command, StopWorkspace, decode_command
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.queries import RESOLVE_TARGET, ResolveTarget, Target
from mlhub_shared.contracts.services import Route, WorkerLease
from mlhub_shared.contracts.workspace import Phase
from mlhub_shared.errors import BusUnavailable, Conflict, Permanent, Temporary
from tests.conftest import bus_settings
from tests.support.makers import NOW, record, spawn, stop, workspace
from tests.support.nats_server import NatsServer
from tests.support.waiting import until

SOON = timedelta(seconds=20)


async def test_bucket_compares_and_sets(bus: Bus) -> None:
    first = await bus.workspaces.create("a", record())
    with pytest.raises(Conflict):
        await bus.workspaces.create("a", record())
    second = await bus.workspaces.update("a", record(phase=Phase.STOPPED), last=first)
    with pytest.raises(Conflict):
        await bus.workspaces.update("a", record(), last=first)
    entry = await bus.workspaces.get("a")
    assert entry is not None
    assert (entry.value.phase, entry.revision) == (Phase.STOPPED, second)


async def test_bucket_creates_again_after_delete(bus: Bus) -> None:
    await bus.workspaces.create("a", record())
    await bus.workspaces.delete("a")
    assert await bus.workspaces.get("a") is None
    await bus.workspaces.create("a", record(phase=Phase.QUEUED))
    entry = await bus.workspaces.get("a")
    assert entry is not None
    assert entry.value.phase is Phase.QUEUED


async def test_table_follows_over_a_killed_server(bus: Bus, nats_server: NatsServer) -> None:
    table = bus.start_table(bus.workspaces)
    await table.synced(SOON)
    await bus.workspaces.put("kept", record())
    await table.wait("kept", lambda entry: entry is not None, timeout=SOON)
    await nats_server.kill()
    assert table.value("kept") is not None
    await nats_server.start()
    await bus.workspaces.put("new", record(user="bob"))
    back = time.monotonic()
    await table.wait("new", lambda entry: entry is not None, timeout=SOON)
    assert time.monotonic() - back < 3
    assert set(dict(table.items())) == {"kept", "new"}


async def test_table_tells_what_went_while_it_was_away(bus: Bus, nats_server: NatsServer) -> None:
    table = bus.start_table(bus.workspaces)
    await bus.workspaces.put("gone", record())
    await table.wait("gone", lambda entry: entry is not None, timeout=SOON)
    other = await Bus.open(bus_settings(nats_server, "other"))
    with table.changes() as changes:
        await anext(changes)
        await other.workspaces.delete("gone")
        assert await asyncio.wait_for(anext(changes), 20) == {"gone"}
    assert table.value("gone") is None
    await other.close()


async def test_table_keeps_the_last_readable_value(bus: Bus) -> None:
    table = bus.start_table(bus.routes)
    await bus.routes.put("r", Route(routespec="/", target="http://hub"))
    await table.wait("r", lambda entry: entry is not None, timeout=SOON)
    await bus.connection.publish(f"$KV.{bus.subjects.routes}.r", b"\xff not json")
    await bus.routes.put("after", Route(routespec="/x/", target="http://x"))
    await table.wait("after", lambda entry: entry is not None, timeout=SOON)
    assert table.value("r") == Route(routespec="/", target="http://hub")


async def test_the_last_command_wins_and_stays_readable(bus: Bus) -> None:
    assert await bus.send(spawn(generation=10), pool="default")
    newest = stop(generation=20)
    assert await bus.send(newest, pool="default")
    assert not await bus.send(spawn(generation=15), pool="default")
    assert await bus.send(newest, pool="default"), "a repeat of the last command is not an older one"
    got: list[Command] = []

    async def handle(command: Command, _: Delivery) -> None:
        got.append(command)

    consume(bus, handle)
    await until(lambda: len(got) == 1)
    found = await bus.last_command("default", workspace().name)
    assert found is not None
    assert found[0] == newest == got[0]


async def test_the_newest_of_pool_and_node_subject_is_the_last_command(bus: Bus) -> None:
    await bus.send(spawn(generation=10), pool="default")
    await bus.send(stop(generation=20), pool="default", node="n1")
    found = await bus.last_command("default", workspace().name, "n1")
    assert found is not None
    assert isinstance(found[0], StopWorkspace)


async def test_forgetting_a_command_spares_a_newer_one(bus: Bus) -> None:
    await bus.send(spawn(generation=1), pool="default")
    old = await bus.last_command("default", workspace().name)
    assert old is not None
    await bus.send(spawn(generation=2), pool="default")
    await bus.forget_commands(bus.subjects.command("default", workspace().name), up_to=old[1])
    found = await bus.last_command("default", workspace().name)
    assert found is not None
    assert found[0].generation == 2


async def test_temporary_failures_are_tried_again(bus: Bus) -> None:
    attempts: list[int] = []

    async def handle(_: Command, delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        if len(attempts) < 3:
            raise Temporary("not yet", delay=timedelta(milliseconds=50))

    consume(bus, handle)
    await bus.send(spawn(), pool="default")
    await until(lambda: attempts == [1, 2, 3])


@pytest.mark.parametrize("error", [Permanent("never"), Temporary("not yet", delay=timedelta(milliseconds=10))])
async def test_what_nobody_can_handle_becomes_a_dead_letter(bus: Bus, error: Exception) -> None:
    dead: list[tuple[Command | None, str]] = []

    async def handle(_: Command, __: Delivery) -> None:
        raise error

    async def on_dead(command: Command | None, _: Delivery, why: str) -> None:
        dead.append((command, why))

    consume(bus, handle, on_dead=on_dead, max_deliver=2)
    command = spawn()
    await bus.send(command, pool="default")
    await until(lambda: len(dead) == 1)
    assert dead[0][0] == command
    letter = await bus.connection.last(bus.subjects.dead, bus.subjects.dead_letter("worker"))
    assert letter is not None
    assert letter.data == command.encode()
    assert str(error) in letter.headers["MLHub-Why"]


async def test_a_malformed_message_does_not_stop_the_next(bus: Bus) -> None:
    got: list[Command] = []

    async def handle(command: Command, _: Delivery) -> None:
        got.append(command)

    consume(bus, handle)
    for number, data in enumerate([b"", b"{}", b"\xff\xfe", b'{"kind":"spawn"}']):
        await bus.connection.publish(bus.subjects.command("default", f"ws-bad-{number}"), data)
    await bus.send(spawn(), pool="default")
    await until(lambda: len(got) == 1)


async def test_consumer_goes_on_after_the_store_was_lost(bus: Bus, nats_server: NatsServer) -> None:
    got: list[int] = []

    async def handle(command: Command, _: Delivery) -> None:
        got.append(command.generation)

    consume(bus, handle)
    await bus.send(spawn(generation=1), pool="default")
    await until(lambda: got == [1])
    await nats_server.kill()
    (nats_server.folder / "store").rename(nats_server.folder / "lost")
    await nats_server.start()
    await bus.send(spawn(generation=2), pool="default")
    await until(lambda: got == [1, 2])


async def test_publishing_waits_for_a_server_that_restarts(bus: Bus, nats_server: NatsServer) -> None:
    await nats_server.kill()
    sending = asyncio.ensure_future(bus.send(spawn(), pool="default"))
    await asyncio.sleep(0.5)
    assert not sending.done()
    await nats_server.start()
    assert await asyncio.wait_for(sending, 30)


async def test_publishing_gives_up_in_the_end(bus: Bus, nats_server: NatsServer) -> None:
    await nats_server.kill()
    with pytest.raises(BusUnavailable):
        await bus.emit(event(), patience=timedelta(seconds=0.5))


async def test_nobody_removes_an_event(bus: Bus) -> None:
    await bus.emit(event())
    with pytest.raises(Exception, match="not permitted"):
        await bus.connection.js.purge_stream(bus.subjects.events)


async def test_replay_tells_the_past_then_the_present_over_a_restart(bus: Bus, nats_server: NatsServer) -> None:
    since = datetime.now(UTC) - timedelta(seconds=1)
    await bus.emit(event(message="first"))
    replay = bus.replay(workspace().name, since=since)
    assert (await asyncio.wait_for(anext(replay), 20)).message == "first"
    await nats_server.kill()
    await nats_server.start()
    await bus.emit(event(message="second"))
    assert (await asyncio.wait_for(anext(replay), 20)).message == "second"
    await replay.aclose()


async def test_a_query_is_answered_or_refused(bus: Bus) -> None:
    async def resolve(query: ResolveTarget) -> Target:
        if query.workspace.user == "nobody":
            raise Permanent("no such workspace")
        return Target(record=record(user=query.workspace.user))

    with pytest.raises(Temporary):
        await bus.ask(RESOLVE_TARGET, ResolveTarget(workspace=workspace()), Target)
    await bus.answer(RESOLVE_TARGET, ResolveTarget, resolve)
    answer = await bus.ask(RESOLVE_TARGET, ResolveTarget(workspace=workspace()), Target)
    assert answer.record == record()
    with pytest.raises(Permanent, match="no such workspace"):
        await bus.ask(RESOLVE_TARGET, ResolveTarget(workspace=workspace("nobody")), Target)


async def test_a_lease_goes_when_it_is_given_up(bus: Bus) -> None:
    lease = Lease(bus.workers, "n1", lambda: WorkerLease(node="n1", pool="default", backend="x", started_at=NOW))
    table = bus.start_table(bus.workers)
    task = asyncio.ensure_future(lease.run())
    await table.wait("n1", lambda entry: entry is not None, timeout=SOON)
    task.cancel()
    await table.wait("n1", lambda entry: entry is None, timeout=SOON)


async def test_timers_fire_once_and_survive_a_kill(bus: Bus, nats_server: NatsServer) -> None:
    fired: list[tuple[str, float]] = []

    async def handle(command: Command, _: Delivery) -> None:
        fired.append((command.workspace.user, time.time()))

    now = datetime.now(UTC)
    for user, seconds in [("soon", 0.3), ("down", 1.0), ("later", 3.0), ("cancelled", 2.0)]:
        await bus.timers.arm("expire", workspace(user).name, now + timedelta(seconds=seconds), stop(user))
    assert len(await bus.timers.pending()) == 4
    bus.consume(
        stream=bus.subjects.timers,
        durable="cleanup",
        filters=[bus.subjects.all_due],
        decode=decode_command,
        handler=handle,
    )
    await bus.timers.cancel("expire", workspace("cancelled").name)
    await until(lambda: [user for user, _ in fired] == ["soon"])
    await nats_server.kill()
    await asyncio.sleep(1)
    await nats_server.start()
    await until(lambda: [user for user, _ in fired] == ["soon", "down", "later"])
    late = fired[-1][1] - (now + timedelta(seconds=3)).timestamp()
    assert 0 <= late < 5


@pytest.fixture
async def stranger(nats_server: NatsServer) -> AsyncIterator[asyncio.Task[Bus]]:
    settings = bus_settings(nats_server)
    wrong = type(settings)(url=settings.url, hub="test", service="stranger", user="test", password="wrong")
    task = asyncio.ensure_future(Bus.open(wrong))
    yield task
    task.cancel()
    await asyncio.wait([task])


async def test_no_credential_no_entry(stranger: asyncio.Task[Bus]) -> None:
    done, _ = await asyncio.wait([stranger], timeout=2)
    assert not done


def event(message: str = "") -> Event:
    return Event(kind=EventKind.WORKSPACE_READY, workspace=workspace(), requester="service:tests", message=message)


def consume(bus: Bus, handle, on_dead=None, max_deliver: int = 5) -> None:  # type: ignore[no-untyped-def]
    bus.consume(
        stream=bus.subjects.commands,
        durable="worker",
        filters=[bus.subjects.commands_of("default")],
        decode=decode_command,
        handler=handle,
        on_dead=on_dead,
        max_deliver=max_deliver,
    )
