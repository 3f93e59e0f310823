"""The look for what the events missed, and all the ways in which it must not delete."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from aiohttp import web
from pydantic import SecretStr

from mlhub_cleanup.commands import Commands
from mlhub_cleanup.hub_api import HubApi
from mlhub_cleanup.reports import Outcome, UsersReport
from mlhub_cleanup.sweep import Sweep
from mlhub_shared.bus import Bus
from mlhub_shared.contracts.commands import DeleteWorkspace, StopWorkspace
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.queries import LIST_RESOURCES, ListResources, Resource, Resources
from mlhub_shared.contracts.services import WorkerLease
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord
from mlhub_shared.runtime.clock import utc_now
from tests.cleanup.conftest import Seen, Start, living, soon
from tests.cleanup.scripted_hub import TOKEN, ScriptedHub
from tests.support.makers import NOW, spawn, workspace
from tests.support.waiting import until, until_async


@pytest.fixture
async def sweep(bus: Bus, seen: Seen, hub: ScriptedHub) -> AsyncIterator[Sweep]:
    records, leases = bus.start_table(bus.workspaces), bus.start_table(bus.workers)
    seen.tables = [records, leases]
    await asyncio.gather(records.synced(), leases.synced())
    async with HubApi(hub.url, SecretStr(TOKEN)) as api:
        yield Sweep(bus, records, leases, Commands(bus, utc_now), api, utc_now)


async def house(seen: Seen, *users: str) -> list[WorkspaceRecord]:
    """One workspace for each of these, known to the sweep."""
    values = [await seen.put(living(user, until=None)) for user in users]
    await seen.settled()
    return values


def outcomes(report: UsersReport) -> dict[str, Outcome]:
    return {item.user: item.outcome for item in report.workspaces}


async def is_deleted(seen: Seen, value: WorkspaceRecord) -> bool:
    return isinstance(await seen.command(value), DeleteWorkspace)


def deletion_of(user: str, *, at: datetime | None = None) -> Event:
    return Event(kind=EventKind.USER_DELETED, user=user, requester="user:admin", at=at or utc_now())


async def test_what_a_deleted_user_has_left_goes_at_once(seen: Seen, sweep: Sweep, hub: ScriptedHub) -> None:
    hub.users = ["a", "b", "c", "d", "e", "f", "g"]
    values = await house(seen, "a", "g", "gone")
    for user in ("gone", "a", "somebody-else"):
        await seen.bus.emit(deletion_of(user))
    event = deletion_of("gone")
    await seen.bus.emit(event)
    report, _ = await sweep.once()
    assert report.users == 7
    assert hub.pages_asked == [0, 3, 6]
    assert [(item.user, item.outcome, item.user_deleted_at) for item in report.workspaces] == [
        ("gone", Outcome.ASKED, event.at)
    ]
    assert hub.asked_about == ["gone"]
    assert [await is_deleted(seen, value) for value in values] == [False, False, True]


async def test_the_sweep_and_the_event_ask_for_the_same(seen: Seen, sweep: Sweep, start: Start) -> None:
    [gone] = await house(seen, "gone")
    await seen.bus.emit(deletion_of("gone"))
    await sweep.once()
    first = await seen.command(gone)
    await start()
    [marker] = await house(seen, "marker")
    await seen.bus.emit(deletion_of("marker"))
    await until_async(lambda: is_deleted(seen, marker))
    assert await seen.command(gone) == first
    assert outcomes((await sweep.once())[0])["gone"] is Outcome.ASKED
    assert await seen.command(gone) == first


@pytest.mark.parametrize("users", [[], ["admin"], [f"u{number}" for number in range(20)]])
async def test_a_sweep_never_deletes_because_a_list_lacks_a_name(
    seen: Seen, sweep: Sweep, hub: ScriptedHub, users: list[str]
) -> None:
    hub.users = users
    values = await house(seen, "alice", "bob", "ws-adopted")
    for _ in range(3):
        assert set(outcomes((await sweep.once())[0]).values()) == {Outcome.HELD}
    assert hub.asked_about == []
    assert not any([await is_deleted(seen, value) for value in values])


async def test_a_held_workspace_goes_when_an_admin_says_so(seen: Seen, sweep: Sweep, hub: ScriptedHub) -> None:
    hub.users = ["admin"]
    kept, gone = await house(seen, "admin", "gone")
    await sweep.once()
    report = await sweep.users(dry_run=False, ordered_by="user:admin")
    assert [(item.user, item.outcome, item.user_deleted_at) for item in report.workspaces] == [
        ("gone", Outcome.ASKED, None)
    ]
    command = await seen.command(gone)
    assert isinstance(command, DeleteWorkspace)
    assert command.requester == "user:admin"
    assert not await is_deleted(seen, kept)


async def test_an_earlier_user_of_the_name_vouches_for_nothing_of_the_next(
    seen: Seen, sweep: Sweep, hub: ScriptedHub
) -> None:
    left, newer = living("gone", "left", until=None), living("gone", "newer", until=None, requested_at=soon(5))
    for value in (left, newer):
        await seen.put(value)
    await seen.bus.emit(deletion_of("gone"))
    await seen.settled()
    report, _ = await sweep.once()
    assert {item.server: item.outcome for item in report.workspaces} == {"left": Outcome.ASKED, "newer": Outcome.HELD}
    assert not await is_deleted(seen, newer)
    await seen.bus.emit(deletion_of("gone", at=soon(6)))
    await sweep.once()
    assert await is_deleted(seen, newer)


async def test_a_deleted_user_who_is_there_again_keeps_everything(seen: Seen, sweep: Sweep, hub: ScriptedHub) -> None:
    hub.users = ["a", "hidden"]
    hub.unlisted = {"hidden"}
    _, hidden = await house(seen, "a", "hidden")
    await seen.bus.emit(deletion_of("hidden"))
    assert outcomes((await sweep.once())[0]) == {"hidden": Outcome.KEPT}
    assert outcomes(await sweep.users(dry_run=False, ordered_by="user:admin")) == {"hidden": Outcome.KEPT}
    hub.unlisted = set()
    assert outcomes((await sweep.once())[0]) == {}
    assert not await is_deleted(seen, hidden)


def broken_pages() -> dict[str, object]:
    short = {"items": [{"name": "d"}], "_pagination": {"offset": 3, "limit": 3, "total": 7, "next": None}}
    again = {"items": [{"name": "a"}], "_pagination": {"offset": 3, "limit": 3, "total": 7, "next": {"offset": 4}}}
    unpaged = [{"name": "d"}]
    return {
        "error": lambda: web.Response(status=500),
        "refused": lambda: web.Response(status=403),
        "moved": lambda: web.Response(status=302, headers={"Location": "/hub/login"}),
        "no JSON": lambda: web.Response(text="<html>"),
        "not paged": lambda: web.json_response(unpaged),
        "partial": lambda: web.json_response(short),
        "endless": lambda: web.json_response(again),
        "null": lambda: web.json_response(None),
    }


@pytest.mark.parametrize("how", broken_pages())
async def test_a_broken_list_deletes_nothing(seen: Seen, sweep: Sweep, hub: ScriptedHub, how: str) -> None:
    hub.users = ["a", "b", "c", "d", "e", "f", "g"]
    answer = broken_pages()[how]
    hub.break_page = lambda offset: answer() if offset == 3 else None  # type: ignore[operator]
    [_, gone] = await house(seen, "a", "gone")
    await seen.bus.emit(deletion_of("gone"))
    for _ in range(3):
        report, _ = await sweep.once()
        assert report.problem is not None
        assert report.workspaces == []
    assert (await sweep.users(dry_run=False, ordered_by="user:admin")).problem is not None
    assert not await is_deleted(seen, gone)


@pytest.mark.parametrize("how", ["dead", "no token", "wrong token", "some users only"])
async def test_a_hub_that_does_not_tell_deletes_nothing(bus: Bus, seen: Seen, hub: ScriptedHub, how: str) -> None:
    [gone] = await house(seen, "gone")
    await seen.bus.emit(deletion_of("gone"))
    records, leases = bus.start_table(bus.workspaces), bus.start_table(bus.workers)
    await asyncio.gather(records.synced(), leases.synced())
    if how == "dead":
        await hub.stop()
    if how == "some users only":
        hub.scopes = ["list:users!group=staff", "read:users:name!group=staff"]
    token = {"no token": None, "wrong token": SecretStr("wrong")}.get(how, SecretStr(TOKEN))
    async with HubApi(hub.url, token) as api:
        sweep = Sweep(bus, records, leases, Commands(bus, utc_now), api, utc_now)
        for _ in range(2):
            assert (await sweep.once())[0].problem is not None
        assert (await sweep.users(dry_run=False, ordered_by="user:admin")).problem is not None
    assert not await is_deleted(seen, gone)


async def test_a_dry_run_does_nothing_and_counts_for_nothing(seen: Seen, sweep: Sweep, hub: ScriptedHub) -> None:
    hub.users = ["a"]
    _, gone, over = await house(seen, "a", "gone", "over")
    await seen.put(over.model_copy(update={"expires_at": soon(-5)}))
    await seen.settled()
    report = await sweep.users(dry_run=True)
    expired = await sweep.expired(dry_run=True)
    assert outcomes(report) == {"gone": Outcome.FOUND, "over": Outcome.FOUND}
    assert [(item.user, item.outcome) for item in expired.workspaces] == [("over", Outcome.FOUND)]
    assert await seen.command(gone) is None
    assert await seen.command(over) is None
    assert outcomes((await sweep.once())[0])["gone"] is Outcome.HELD


async def test_a_workspace_that_was_spawned_meanwhile_is_kept(seen: Seen, sweep: Sweep, hub: ScriptedHub) -> None:
    hub.users = ["a"]
    _, gone = await house(seen, "a", "gone")

    async def spawned() -> None:
        generation = int(datetime.now(UTC).timestamp() * 1_000_000)
        await seen.bus.send(spawn("gone", generation=generation), pool=gone.pool, node=gone.node)

    hub.meanwhile = spawned
    report = await sweep.users(dry_run=False, ordered_by="user:admin")
    assert outcomes(report) == {"gone": Outcome.KEPT}
    assert not await is_deleted(seen, gone)


async def test_what_timers_missed_is_stopped(seen: Seen, sweep: Sweep, hub: ScriptedHub) -> None:
    await hub.stop()
    over = await seen.put(living("over", until=soon(-5)))
    for name, fields in (("later", {"until": soon(60)}), ("done", {"until": soon(-5), "phase": Phase.STOPPED})):
        await seen.put(living(name, **fields))
    await seen.settled()
    _, report = await sweep.once()
    assert [(item.user, item.outcome) for item in report.workspaces] == [("over", Outcome.ASKED)]
    command = await seen.command(over)
    assert isinstance(command, StopWorkspace)
    assert command.only_generation == over.generation


async def test_what_has_no_record_is_reported_only(bus: Bus, seen: Seen, sweep: Sweep, hub: ScriptedHub) -> None:
    [kept] = await house(seen, "kept")
    hub.users = ["kept"]
    held = [
        Resource(kind="directory", name=kept.name, workspace=kept.workspace),
        Resource(kind="directory", name="ws-lost-test", workspace=workspace("lost")),
        Resource(kind="process", name="4711"),
    ]

    async def listed(_: ListResources) -> Resources:
        return Resources(node="n1", resources=held)

    await bus.answer(LIST_RESOURCES, ListResources, listed, node="n1")
    for node, replica in (("n1", "r1"), ("n1", "r2"), ("n2", "")):
        lease = WorkerLease(node=node, replica=replica, pool="default", backend="process", started_at=NOW)
        await bus.workers.put(lease.key, lease)
    await seen.settled()
    report = await sweep.users(dry_run=False)
    assert report.unclaimed == held[1:]
    assert report.silent_nodes == ["n2"]
    assert report.workspaces == []


async def test_the_service_sweeps_by_itself(seen: Seen, start: Start, hub: ScriptedHub) -> None:
    hub.users = ["a"]
    _, gone, held = await house(seen, "a", "gone", "held")
    await seen.bus.emit(deletion_of("gone"))
    await start(hub_api_url=hub.url, interval_seconds=0.2)
    await until_async(lambda: is_deleted(seen, gone))
    await until(lambda: len(hub.pages_asked) >= 3)
    assert not await is_deleted(seen, held)


async def test_sweeps_are_off_when_asked(seen: Seen, start: Start, hub: ScriptedHub) -> None:
    await house(seen, "gone")
    await start(hub_api_url=hub.url, interval_seconds=-1)
    await asyncio.sleep(0.5)
    assert hub.pages_asked == []
