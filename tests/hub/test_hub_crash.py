"""`kill -9` of the hub in the middle of a spawn: the next hub goes on where it died, and nothing is started twice."""

import asyncio

import pytest

from mlhub_shared.contracts.workspace import Phase, Reason
from tests.hub.conftest import Stage
from tests.support.hub_process import Api
from tests.support.waiting import until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(autouse=True)
def _workers_go_all_the_way(stage: Stage) -> None:
    stage.worker.spawn_until = Phase.READY
    stage.worker.resume()


async def test_a_command_that_no_worker_has_seen_is_not_lost(stage: Stage) -> None:
    await stage.user("unseen")
    stage.worker.pause()
    await stage.api("POST", "/users/unseen/server", expect=202)
    await _until_sent(stage, "ws-unseen-test")
    await stage.hub.kill()
    await stage.hub.start()
    assert (await stage.api.server("unseen") or {})["pending"] == "spawn"
    stage.worker.resume()
    await stage.until_ready("unseen")
    assert len(stage.worker.spawns_of("ws-unseen-test")) == 1


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.STARTING])
async def test_a_spawn_on_its_way_is_adopted_with_its_progress(stage: Stage, phase: Phase) -> None:
    user = f"way{phase.value}"
    name = f"ws-{user}-test"
    await stage.user(user)
    stage.worker.spawn_until = phase
    await stage.api("POST", f"/users/{user}/server", expect=202)
    await stage.until_phase(name, phase)
    await stage.hub.kill()
    await stage.hub.start()
    assert (await stage.api.server(user) or {})["pending"] == "spawn"
    assert await stage.api.status("POST", f"/users/{user}/server") == 202
    async with stage.api.progress(user) as progress:
        await progress.until(message="Queued: 1st in line" if phase is Phase.QUEUED else "Starting")
        await stage.worker.move(name, Phase.READY)
        messages = await progress.to_end()
    assert messages[1]["message"] == "Requested"
    assert messages[-1]["ready"]
    assert (await stage.api.server(user) or {})["ready"]
    assert len(stage.worker.spawns_of(name)) == 1


async def test_what_became_ready_while_the_hub_was_dead_is_ready(stage: Stage) -> None:
    await stage.user("late")
    stage.worker.spawn_until = Phase.STARTING
    await stage.api("POST", "/users/late/server", expect=202)
    await stage.until_phase("ws-late-test", Phase.STARTING)
    await stage.hub.kill()
    await stage.worker.move("ws-late-test", Phase.READY)
    await stage.hub.start()
    await stage.until_ready("late")
    # And its death is told as that of any other, and ends the token that the hub before has given it.
    entry = await stage.bus.secrets.get("ws-late-test")
    assert entry is not None
    workspace = Api(stage.hub, entry.value.env["JUPYTERHUB_API_TOKEN"])
    assert await workspace.status("GET", "/user") == 200
    await stage.worker.move("ws-late-test", Phase.STOPPED, reason=Reason.EXITED)
    await stage.until_gone("late")
    assert await workspace.status("GET", "/user") == 403


async def test_what_failed_while_the_hub_was_dead_is_stopped(stage: Stage) -> None:
    await stage.user("sad")
    stage.worker.spawn_until = Phase.STARTING
    await stage.api("POST", "/users/sad/server", expect=202)
    await stage.until_phase("ws-sad-test", Phase.STARTING)
    await stage.hub.kill()
    await stage.worker.move("ws-sad-test", Phase.FAILED, reason=Reason.EXITED, message="It exited with 1")
    await stage.hub.start()
    await stage.until_gone("sad")
    await stage.api("POST", "/users/sad/server", expect=202)
    await stage.until_phase("ws-sad-test", Phase.STARTING)


async def test_a_failure_during_adoption_says_why(stage: Stage) -> None:
    await stage.user("mid")
    stage.worker.spawn_until = Phase.STARTING
    await stage.api("POST", "/users/mid/server", expect=202)
    await stage.until_phase("ws-mid-test", Phase.STARTING)
    await stage.hub.kill()
    await stage.hub.start()
    async with stage.api.progress("mid") as progress:
        await progress.until(message="Starting")
        await stage.worker.move("ws-mid-test", Phase.FAILED, reason=Reason.TIMEOUT, message="It never answered")
        messages = await progress.to_end()
    assert messages[-1]["failed"]
    assert "It never answered" in messages[-1]["message"]
    await stage.until_gone("mid")


@pytest.mark.parametrize("worker_is_there", [True, False])
async def test_an_adopted_spawn_can_be_cancelled_and_asked_for_again(stage: Stage, worker_is_there: bool) -> None:
    user = "again" if worker_is_there else "againlater"
    name = f"ws-{user}-test"
    await stage.user(user)
    stage.worker.spawn_until = Phase.QUEUED
    await stage.api("POST", f"/users/{user}/server", expect=202)
    await stage.until_phase(name, Phase.QUEUED)
    await stage.hub.kill()
    if not worker_is_there:
        stage.worker.pause()
    await stage.hub.start()
    cancelling = asyncio.ensure_future(stage.api.status("DELETE", f"/users/{user}/server"))
    await asyncio.sleep(2.5)
    if not worker_is_there:
        assert (await stage.api.server(user) or {"pending": "stop"})["pending"] == "stop"
        stage.worker.resume()
    assert await cancelling in {202, 204}
    await stage.until_gone(user)
    await stage.until_phase(name, Phase.STOPPED)
    stage.worker.spawn_until = Phase.READY
    await stage.api("POST", f"/users/{user}/server", expect=202)
    await stage.until_ready(user)
    # Whatever is left of the cancelled adoption must not stop what came after it.
    await asyncio.sleep(12)
    assert (await stage.api.server(user) or {})["ready"]
    assert [c.kind for c in stage.worker.commands if c.workspace.user == user] == ["spawn", "stop", "spawn"]


async def test_workspaces_stay_up_while_the_proxy_is_not_there_yet(stage: Stage) -> None:
    await stage.user("pat")
    await stage.api("POST", "/users/pat/server", expect=202)
    await stage.until_ready("pat")
    await stage.hub.kill()
    async with stage.worker.proxy_away():
        await stage.hub.start()
        await asyncio.sleep(13)
        record = await stage.worker.record("ws-pat-test")
        assert record is not None
        assert record.phase is Phase.READY
    await stage.until_ready("pat")


async def _until_sent(stage: Stage, name: str) -> None:
    subject = stage.bus.subjects.command("default", name)

    async def is_sent() -> bool:
        return await stage.bus.connection.last(stage.bus.subjects.commands, subject) is not None

    await until_async(is_sent)
