"""What a spawn shows while it waits and starts, also over the death of the bus."""

import asyncio

import pytest

from mlhub_shared.contracts.workspace import Phase
from tests.hub.conftest import Stage
from tests.support.waiting import until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_place_in_line_is_told_and_moves_up(stage: Stage) -> None:
    stage.worker.spawn_until = Phase.QUEUED
    users = ["one", "two", "three"]
    for user in users:
        await stage.user(user)
        await stage.api("POST", f"/users/{user}/server", expect=202)
        await stage.until_phase(f"ws-{user}-test", Phase.QUEUED)
    async with stage.api.progress("three") as progress:
        waiting = await progress.until(message="Queued: 3rd in line, all 2 places are taken")
        assert (waiting["position"], waiting["progress"]) == (3, 5)
        await stage.worker.move("ws-one-test", Phase.READY)
        await progress.until(message="Queued: 2nd in line")
        # Who gives up makes room as well.
        await stage.api("DELETE", "/users/two/server", expect=204)
        await progress.until(message="Queued: 1st in line")
        await stage.worker.move("ws-three-test", Phase.READY)
        messages = await progress.to_end()
    assert [message["message"] for message in messages][:2] == ["Server requested", "Requested"]
    assert messages[-1]["ready"]
    numbers = [message["progress"] for message in messages if "progress" in message]
    assert numbers == sorted(numbers)


async def test_two_watchers_see_the_same_from_the_beginning(stage: Stage) -> None:
    stage.worker.spawn_until = Phase.STARTING
    await stage.user("tom")
    await stage.api("POST", "/users/tom/server", expect=202)
    await stage.until_phase("ws-tom-test", Phase.STARTING)
    async with stage.api.progress("tom") as first:
        await first.until(message="Starting")
        async with stage.api.progress("tom") as second:
            await second.until(message="Starting")
            await stage.worker.move("ws-tom-test", Phase.READY)
            first_seen, second_seen = await first.to_end(), await second.to_end()
    assert [m["message"] for m in first_seen] == [m["message"] for m in second_seen]


async def test_an_earlier_spawn_does_not_show_in_a_later_one(stage: Stage) -> None:
    stage.worker.spawn_until = Phase.READY
    await stage.user("ann")
    await stage.api("POST", "/users/ann/server", expect=202)
    await stage.until_ready("ann")
    await stage.api("DELETE", "/users/ann/server", expect=204)
    stage.worker.spawn_until = Phase.STARTING
    await stage.api("POST", "/users/ann/server", expect=202)
    await stage.until_phase("ws-ann-test", Phase.STARTING)
    async with stage.api.progress("ann") as progress:
        await progress.until(message="Starting")
        await stage.worker.move("ws-ann-test", Phase.READY)
        messages = [message["message"] for message in await progress.to_end()]
    assert messages.count("Requested") == 1
    assert "Stopped" not in messages


async def test_a_spawn_and_its_progress_outlive_the_bus(stage: Stage) -> None:
    stage.worker.spawn_until = Phase.STARTING
    await stage.user("bus")
    await stage.api("POST", "/users/bus/server", expect=202)
    await stage.until_phase("ws-bus-test", Phase.STARTING)
    async with stage.api.progress("bus") as progress:
        await progress.until(message="Starting")
        await stage.nats.kill()
        await asyncio.sleep(2)
        assert (await stage.api.server("bus") or {})["pending"] == "spawn"
        await stage.nats.start()
        await stage.worker.move("ws-bus-test", Phase.READY)
        messages = await progress.to_end()
    assert messages[-1]["ready"]


async def test_a_ready_workspace_stays_ready_while_the_bus_is_away(stage: Stage) -> None:
    await stage.user("calm")
    stage.worker.spawn_until = Phase.READY
    await stage.api("POST", "/users/calm/server", expect=202)
    await stage.until_ready("calm")
    await stage.nats.kill()
    try:
        # Asking for it once more has the hub look whether it still runs.
        assert await stage.api.status("POST", "/users/calm/server") == 400
        assert (await stage.api.server("calm") or {})["ready"]
        health = await stage.api.response("GET", "/../health")
        assert health.status_code == 503
        assert health.json()["bus"] is False
    finally:
        await stage.nats.start()


async def test_a_stop_asked_while_the_bus_is_away_is_done_when_it_is_back(stage: Stage) -> None:
    await stage.user("halt")
    stage.worker.spawn_until = Phase.READY
    await stage.api("POST", "/users/halt/server", expect=202)
    await stage.until_ready("halt")
    await stage.nats.kill()
    try:
        assert await stage.api.status("DELETE", "/users/halt/server") == 202
    finally:
        await stage.nats.start()
    await stage.until_phase("ws-halt-test", Phase.STOPPED, within=40)
    await stage.until_gone("halt")


async def test_a_start_asked_while_the_bus_is_away_happens_once_when_it_is_back(stage: Stage) -> None:
    await stage.user("eager")
    stage.worker.spawn_until = Phase.READY
    await stage.nats.kill()
    try:
        assert await stage.api.status("POST", "/users/eager/server") == 202
        await asyncio.sleep(1)
    finally:
        await stage.nats.start()
    await stage.until_ready("eager", within=40)
    # A delivery whose acknowledgement was lost comes again: it is still one command.
    assert len({spawn.id for spawn in stage.worker.spawns_of("ws-eager-test")}) == 1


async def test_no_name_is_changed_while_nobody_can_say_what_lies_under_it(stage: Stage) -> None:
    await stage.user("ray")
    await stage.api("PUT", "/users/ray/servers/a", {"user_options": {"secret_env": {"S": "v"}}}, expect=201)
    await stage.user("roy")
    await stage.nats.kill()
    try:
        for path in ("/users/ray/servers/a", "/users/roy"):
            answer = await stage.api("PATCH", path, {"name": "other"}, expect=503)
            assert "Try again in a moment" in answer["message"]
    finally:
        await stage.nats.start()

    async def is_renamed() -> bool:
        return await stage.api.status("PATCH", "/users/ray/servers/a", {"name": "other"}) == 200

    await until_async(is_renamed, within=40)
    entry = await stage.bus.secrets.get("ws-ray-test-other")
    assert entry is not None
    assert entry.value.secret_env == {"S": "v"}
