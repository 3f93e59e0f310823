"""Warnings and ends, to the second, also when something dies in between."""

import asyncio
import shutil
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest

from mlhub_shared.contracts.commands import StopWorkspace
from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.timers import Purpose, Timer
from mlhub_shared.contracts.workspace import Phase, Reason, WorkspaceRecord
from tests.cleanup.conftest import Seen, Start, living, soon
from tests.support.makers import stop
from tests.support.nats_server import NatsServer
from tests.support.waiting import until, until_async

TIMERS = set(Purpose)
LATE = 5
"""Seconds, which a loaded machine keeps too: how exact it is is measured elsewhere."""


async def stopped(seen: Seen, value: WorkspaceRecord, *, within: float = 30) -> tuple[StopWorkspace, float]:
    """The stop that was sent, and how long after the end it was seen."""

    async def sent() -> bool:
        return await seen.command(value) is not None

    await until_async(sent, within=within)
    command = await seen.command(value)
    assert isinstance(command, StopWorkspace)
    assert value.expires_at is not None
    return command, (datetime.now(UTC) - value.expires_at).total_seconds()


async def armed(seen: Seen, value: WorkspaceRecord, purposes: set[Purpose] = TIMERS) -> None:
    async def all_armed() -> bool:
        return {purpose for purpose, name in await seen.pending() if name == value.name} == purposes

    await until_async(all_armed)


async def test_a_workspace_is_warned_about_and_stopped_at_its_time(seen: Seen, start: Start) -> None:
    cleanup, _ = await start()
    value = await seen.put(living(until=soon(2), ready_at=soon(-2), correlation_id="c1"))
    command, late = await stopped(seen, value)
    assert 0 <= late < LATE
    assert (command.reason, command.only_generation) == (Reason.EXPIRED, 7)
    assert command.generation > 7
    assert command.correlation_id == "c1"
    [warning], [end] = (
        await seen.events(EventKind.WORKSPACE_EXPIRING, value),
        await seen.events(EventKind.WORKSPACE_EXPIRED, value),
    )
    assert value.expires_at is not None
    assert 0 < (value.expires_at - warning.at).total_seconds() < 1.1
    assert end.correlation_id == "c1"
    assert cleanup.problems == {}


async def test_a_queued_workspace_has_no_end_yet(seen: Seen, start: Start) -> None:
    await start()
    await seen.put(living("bob", until=soon(60)))
    await seen.put(living(until=None, phase=Phase.QUEUED))
    await armed(seen, living("bob", until=None))
    assert {name for _, name in await seen.pending()} == {"ws-bob-test"}


async def test_an_extended_workspace_lives_on(seen: Seen, start: Start) -> None:
    await start()
    value = await seen.put(living(until=soon(2.5)))
    await armed(seen, value)
    longer = await seen.put(value.model_copy(update={"expires_at": soon(7)}))
    await asyncio.sleep(3)
    assert await seen.command(value) is None
    _, late = await stopped(seen, longer)
    assert 0 <= late < LATE


@pytest.mark.parametrize("how", ["stopped", "deleted", "forever"])
async def test_a_workspace_without_an_end_keeps_no_timer(seen: Seen, start: Start, how: str) -> None:
    await start()
    value = await seen.put(living(until=soon(3600)))
    await armed(seen, value)
    if how == "deleted":
        await seen.remove(value)
    else:
        change = {"phase": Phase.STOPPED} if how == "stopped" else {"expires_at": None}
        await seen.put(value.model_copy(update=change))
    await armed(seen, value, set())


async def test_an_end_that_comes_while_the_service_is_dead_is_kept_on_its_return(seen: Seen, start: Start) -> None:
    _, life = await start()
    value = await seen.put(living(until=soon(2.5)))
    await armed(seen, value)
    await life.aclose()
    await asyncio.sleep(2.8)
    assert await seen.command(value) is None
    await start()
    await stopped(seen, value, within=10)
    assert len(await seen.events(EventKind.WORKSPACE_EXPIRED, value)) == 1


async def test_a_record_that_changed_while_the_service_was_dead_is_noticed(seen: Seen, start: Start) -> None:
    _, life = await start()
    extended, gone, over = (living(user, until=soon(3600)) for user in ("extended", "gone", "over"))
    for value in (extended, gone, over):
        await seen.put(value)
        await armed(seen, value)
    await life.aclose()
    extended = await seen.put(extended.model_copy(update={"expires_at": soon(3)}))
    over = await seen.put(over.model_copy(update={"expires_at": soon(-60)}))
    await seen.remove(gone)
    await start()
    await stopped(seen, over, within=10)
    _, late = await stopped(seen, extended)
    assert 0 <= late < LATE
    await armed(seen, gone, set())


async def test_ends_survive_a_kill_of_the_bus(seen: Seen, start: Start, nats_server: NatsServer) -> None:
    await start()
    down, later = (
        await seen.put(living("down", until=soon(2.5))),
        await seen.put(living(until=soon(5))),
    )
    await armed(seen, down)
    await armed(seen, later)
    await nats_server.kill()
    await asyncio.sleep(2.8)
    await nats_server.start()
    await stopped(seen, down, within=10)
    _, late = await stopped(seen, later)
    assert 0 <= late < LATE


async def test_a_lost_store_gets_its_timers_again(seen: Seen, start: Start, nats_server: NatsServer) -> None:
    await start()
    value = await seen.put(living(until=soon(5)))
    await armed(seen, value)
    await nats_server.kill()
    (nats_server.folder / "store").rename(nats_server.folder / "lost")
    await nats_server.start()
    await seen.put(value)
    await armed(seen, value)
    _, late = await stopped(seen, value)
    assert 0 <= late < LATE


async def test_timers_that_the_bus_lost_are_armed_again(seen: Seen, start: Start, nats_server: NatsServer) -> None:
    cleanup, _ = await start()
    value = await seen.put(living(until=soon(4)))
    await armed(seen, value)
    await nats_server.kill()
    [stream] = (nats_server.folder / "store").rglob(seen.bus.subjects.timers)
    shutil.rmtree(stream)
    await nats_server.start()
    _, late = await stopped(seen, value)
    assert 0 <= late < LATE
    await until(lambda: cleanup.problems == {})


async def test_a_second_delivery_changes_nothing(seen: Seen, start: Start) -> None:
    await start()
    value = await seen.put(living(until=soon(0.3)))
    first, _ = await stopped(seen, value)
    timer = Timer(
        requester="x", workspace=value.workspace, generation=7, purpose=Purpose.EXPIRE, expires_at=value.expires_at
    )
    await seen.bus.timers.arm(Purpose.EXPIRE, value.name, soon(-1), timer)
    await armed(seen, value, set())
    await asyncio.sleep(0.5)
    assert await seen.command(value) == first
    assert len(await seen.events(EventKind.WORKSPACE_EXPIRED, value)) == 1


async def test_a_restart_long_after_the_end_does_not_tell_it_again(seen: Seen, start: Start) -> None:
    value = await seen.put(living(until=soon(-600)))
    _, life = await start()
    await stopped(seen, value)
    await life.aclose()
    await seen.forget_message_ids()
    await start()
    await armed(seen, value, set())
    await asyncio.sleep(0.5)
    assert len(await seen.events(EventKind.WORKSPACE_EXPIRED, value)) == 1


async def test_stale_and_malformed_timers_do_nothing(seen: Seen, start: Start) -> None:
    await start()
    value = await seen.put(living(until=soon(3600)))
    await armed(seen, value)
    subject = seen.bus.subjects.due
    for data in (b"", b"{}", b"\xff", stop().encode()):
        await seen.bus.connection.publish(subject("expire", value.name), data)
    old = Timer(requester="x", workspace=value.workspace, generation=7, purpose=Purpose.EXPIRE, expires_at=soon(-5))
    nobody = living("nobody", until=soon(-5))
    for timer in (old, old.model_copy(update={"workspace": nobody.workspace})):
        await seen.bus.connection.publish(subject("expire", value.name), timer.encode())
    other = await seen.put(living("other", until=soon(0.5)))
    await stopped(seen, other)
    assert await seen.command(value) is None
    assert await seen.command(nobody) is None


async def test_what_was_asked_after_the_end_wins(seen: Seen, start: Start) -> None:
    value = await seen.put(living(until=soon(-5)))
    newer = stop(generation=int(datetime.now(UTC).timestamp() * 1_000_000))
    await seen.bus.send(newer, pool=value.pool, node=value.node)
    await start()
    await asyncio.sleep(1)
    assert await seen.command(value) == newer


async def test_two_services_send_one_stop(seen: Seen, start: Start) -> None:
    await start()
    await start()
    value = await seen.put(living(until=soon(0.6)))
    await stopped(seen, value)
    await asyncio.sleep(0.4)
    assert len(await seen.events(EventKind.WORKSPACE_EXPIRED, value)) == 1


async def test_the_service_is_ready_without_a_hub(start: Start) -> None:
    cleanup, life = await start(hub_api_url="http://127.0.0.1:9/hub/api", interval_seconds=0.2)
    assert isinstance(life, AsyncExitStack)
    await until(lambda: cleanup.problems == {})
    await asyncio.sleep(0.5)
    assert cleanup.problems == {}
