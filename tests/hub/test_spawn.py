"""A workspace's life over the REST API, with a real bus and a worker that does what it is told."""

import asyncio

import pytest

from mlhub_shared.contracts.commands import DeleteWorkspace, SpawnWorkspace, StopWorkspace
from mlhub_shared.contracts.workspace import Phase, Reason
from tests.hub.conftest import Stage
from tests.support.waiting import until, until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_start_is_answered_at_once_and_followed_over_the_bus(stage: Stage) -> None:
    await stage.user("alice")
    assert await stage.api.status("POST", "/users/alice/server") == 202
    await stage.until_ready("alice")
    [spawn] = stage.worker.spawns_of("ws-alice-test")
    assert (spawn.base_url, spawn.requester) == ("/user/alice/", "service:automation")
    model = await stage.api.server("alice")
    assert model is not None
    assert model["url"] == "/user/alice/"


async def test_the_worker_gets_what_jupyter_needs_and_only_by_the_bucket_of_secrets(stage: Stage) -> None:
    await stage.user("bea")
    await stage.api("POST", "/users/bea/servers/gpu1", {"cpu_limit": 2, "mem_limit": "512M", "env": {"A": "b"}})
    await stage.until_ready("bea", "gpu1")
    [spawn] = stage.worker.spawns_of("ws-bea-test-gpu1")
    entry = await stage.bus.secrets.get("ws-bea-test-gpu1")
    assert entry is not None
    env = entry.value.env
    assert entry.value.generation == spawn.generation
    assert env["JUPYTERHUB_API_URL"] == "http://127.0.0.1:8002/hub/api"
    assert env["JUPYTERHUB_SERVICE_PREFIX"] == spawn.base_url == "/user/bea/gpu1/"
    assert (env["CPU_LIMIT"], env["MEM_LIMIT"]) == ("2.0", str(512 * 1024**2))
    assert "JUPYTERHUB_SERVICE_URL" not in env
    assert not any(name.startswith("MLHUB_") for name in env)
    assert env["JUPYTERHUB_API_TOKEN"] not in spawn.encode().decode()
    assert (spawn.spec.cpu_limit, spawn.spec.mem_limit, spawn.spec.env) == (2, 512 * 1024**2, {"A": "b"})


async def test_the_generation_grows_over_stop_and_start(stage: Stage) -> None:
    await stage.user("gwen")
    for _ in range(2):
        await stage.api("POST", "/users/gwen/server", expect=202)
        await stage.until_ready("gwen")
        assert await stage.api.status("DELETE", "/users/gwen/server") == 204
    assert {c.requester for c in stage.worker.commands if c.workspace.user == "gwen"} == {"service:automation"}
    generations = [c.generation for c in stage.worker.commands if c.workspace.user == "gwen"]
    kinds = [c.kind for c in stage.worker.commands if c.workspace.user == "gwen"]
    assert kinds == ["spawn", "stop", "spawn", "stop"]
    assert generations == sorted(set(generations))


async def test_a_failure_says_why(stage: Stage) -> None:
    await stage.user("fay")
    stage.worker.spawn_until = Phase.STARTING
    try:
        await stage.api("POST", "/users/fay/server", expect=202)
        await stage.until_phase("ws-fay-test", Phase.STARTING)
        async with stage.api.progress("fay") as progress:
            await progress.until(message="Starting")
            await stage.worker.move(
                "ws-fay-test", Phase.FAILED, reason=Reason.TIMEOUT, message="It did not answer within 60 s"
            )
            messages = await progress.to_end()
    finally:
        stage.worker.spawn_until = Phase.READY
    assert messages[-1]["failed"]
    assert "It did not answer within 60 s" in messages[-1]["message"]
    await stage.until_gone("fay")
    assert await stage.bus.last_command("default", "ws-fay-test", "node1") is not None
    assert not [c for c in stage.worker.commands if c.workspace.user == "fay" and c.kind == "stop"]


async def test_a_death_is_known_at_once(stage: Stage) -> None:
    await stage.user("dora")
    await stage.api("POST", "/users/dora/server", expect=202)
    await stage.until_ready("dora")
    await stage.worker.move("ws-dora-test", Phase.FAILED, reason=Reason.EXITED, message="It exited with 1")
    await stage.until_gone("dora", within=10)


async def test_a_workspace_that_comes_right_after_its_death_is_not_stopped(stage: Stage) -> None:
    await stage.user("dirk")
    await stage.api("POST", "/users/dirk/server", expect=202)
    await stage.until_ready("dirk")
    await stage.worker.move("ws-dirk-test", Phase.STOPPED, reason=Reason.EXPIRED)
    await stage.until_gone("dirk")
    await stage.api("POST", "/users/dirk/server", expect=202)
    await stage.until_ready("dirk")
    await asyncio.sleep(1.5)
    assert (await stage.api.server("dirk") or {})["ready"]
    assert len(stage.worker.spawns_of("ws-dirk-test")) == 2


async def test_a_pending_start_can_be_cancelled_and_asked_for_again(stage: Stage) -> None:
    await stage.user("carl")
    stage.worker.spawn_until = Phase.QUEUED
    try:
        await stage.api("POST", "/users/carl/server", expect=202)
        await stage.until_phase("ws-carl-test", Phase.QUEUED)
        assert await stage.api.status("DELETE", "/users/carl/server") == 204
        await stage.until_phase("ws-carl-test", Phase.STOPPED)
    finally:
        stage.worker.spawn_until = Phase.READY
    await stage.api("POST", "/users/carl/server", expect=202)
    await stage.until_ready("carl")


async def test_deleting_a_workspace_deletes_its_data(stage: Stage) -> None:
    await stage.user("del")
    await stage.api("POST", "/users/del/servers/x", expect=202)
    await stage.until_ready("del", "x")
    assert await stage.api.status("DELETE", "/users/del/servers/x", {"remove": True}) == 204

    async def is_gone() -> bool:
        return await stage.worker.record("ws-del-test-x") is None

    await until_async(is_gone)
    assert [c for c in stage.worker.commands if isinstance(c, DeleteWorkspace) and c.workspace.user == "del"]


async def test_a_default_workspace_is_deleted_with_its_data_and_starts_anew(stage: Stage) -> None:
    await stage.user("default")
    name, worker = "ws-default-test", stage.worker
    await stage.api("POST", "/users/default/server", {"env": {"A": "b"}}, expect=202)
    await stage.until_ready("default")
    await stage.api("DELETE", "/users/default/server")
    await stage.until_gone("default")
    worker.pause()
    await stage.api("DELETE", "/users/default/server", {"remove": True}, expect=204)
    await stage.api("POST", "/users/default/server", expect=202)
    await asyncio.sleep(0.5)
    worker.resume()
    await stage.until_ready("default")
    kinds = [type(command) for command in worker.commands if command.workspace.name == name]
    assert kinds == [SpawnWorkspace, StopWorkspace, DeleteWorkspace, SpawnWorkspace]
    assert worker.spawns_of(name)[-1].spec.env == {}
    await stage.api("DELETE", "/users/default/server", {"remove": True}, expect=204)
    await stage.api("DELETE", "/users/default/server", {"remove": True}, expect=204)


async def test_a_workspace_made_anew_while_it_is_deleted_is_the_hubs_own(stage: Stage) -> None:
    await stage.user("ines")
    for _ in range(3):
        await stage.api("POST", "/users/ines/servers/o", expect=202)
        await stage.until_ready("ines", "o")
        before = len(stage.worker.commands)
        removal = asyncio.ensure_future(stage.api.status("DELETE", "/users/ines/servers/o", {"remove": True}))
        await until(lambda: len(stage.worker.commands) > before)  # noqa: B023  (awaited in this very round)
        again = asyncio.ensure_future(stage.api.status("POST", "/users/ines/servers/o"))
        assert (await removal, await again) in {(204, 202), (202, 202)}
        await stage.until_ready("ines", "o")
        model = await stage.api.server("ines", "o")
        assert model is not None
        assert model["ready"]
        assert await stage.api.status("DELETE", "/users/ines/servers/o", {"remove": True}) in {202, 204}


async def test_a_user_is_deleted_while_a_workspace_of_his_is(stage: Stage) -> None:
    await stage.user("jon")
    await stage.api("POST", "/users/jon/servers/o", expect=202)
    await stage.until_ready("jon", "o")
    before = len(stage.worker.commands)
    removal = asyncio.ensure_future(stage.api.status("DELETE", "/users/jon/servers/o", {"remove": True}))
    await until(lambda: len(stage.worker.commands) > before)
    assert await stage.api.status("DELETE", "/users/jon") == 204
    assert await removal in {202, 204}
    assert await stage.api.status("GET", "/users/jon") == 404


async def test_deleting_a_workspace_that_never_ran_asks_nobody(stage: Stage) -> None:
    await stage.user("new")
    await stage.api("PUT", "/users/new/servers/x", {"user_options": {"env": {"MY_TOKEN": "t"}}}, expect=201)
    assert await stage.bus.secrets.get("ws-new-test-x") is not None
    assert await stage.api.status("DELETE", "/users/new/servers/x", {"remove": True}) == 204
    assert await stage.bus.secrets.get("ws-new-test-x") is None
    assert not [c for c in stage.worker.commands if c.workspace.user == "new"]


async def test_a_user_is_deleted_with_all_that_runs(stage: Stage) -> None:
    await stage.user("gone")
    for server in ("one", "two"):
        await stage.api("POST", f"/users/gone/servers/{server}", expect=202)
    await stage.api("POST", "/users/gone/server", expect=202)
    for server in ("", "one", "two"):
        await stage.until_ready("gone", server)
    assert await stage.api.status("DELETE", "/users/gone") == 204
    await until(lambda: len([c for c in stage.worker.commands if isinstance(c, DeleteWorkspace)]) >= 3)
    stops = [c.workspace.server for c in stage.worker.commands if isinstance(c, StopWorkspace)]
    assert {"one", "two"} <= set(stops)
    subject = stage.bus.subjects.events_named("user-deleted")

    async def is_told() -> bool:
        raw = await stage.bus.connection.last(stage.bus.subjects.events, subject.replace("*", "_"))
        return raw is not None and b'"gone"' in raw.data

    await until_async(is_told)
    assert await stage.api.status("GET", "/users/gone") == 404


async def test_a_user_with_workspaces_keeps_the_name(stage: Stage) -> None:
    await stage.user("nina")
    await stage.api("POST", "/users/nina/server", expect=202)
    await stage.until_ready("nina")
    answer = await stage.api("PATCH", "/users/nina", {"name": "other"}, expect=400)
    assert "nina has files in the default workspace" in answer["message"]
    await stage.api("PUT", "/users/nina/servers/x", expect=201)
    answer = await stage.api("PATCH", "/users/nina", {"name": "other"}, expect=400)
    assert "delete them first" in answer["message"]
    await stage.user("nobody")
    await stage.api("PATCH", "/users/nobody", {"name": "somebody"}, expect=200)


async def test_a_workspace_is_renamed_only_before_it_ran(stage: Stage) -> None:
    await stage.user("rene")
    await stage.api("PUT", "/users/rene/servers/a", {"user_options": {"secret_env": {"S": "v"}}}, expect=201)
    await stage.api("PATCH", "/users/rene/servers/a", {"name": "b", "display_name": "b"}, expect=200)
    await stage.api("POST", "/users/rene/servers/b", expect=202)
    await stage.until_ready("rene", "b")
    entry = await stage.bus.secrets.get("ws-rene-test-b")
    assert entry is not None
    assert entry.value.secret_env == {"S": "v"}
    await stage.api("DELETE", "/users/rene/servers/b", expect=204)
    answer = await stage.api("PATCH", "/users/rene/servers/b", {"name": "c", "display_name": "c"}, expect=400)
    assert "its data lies there" in answer["message"]


async def test_names_that_only_look_alike_are_two_workspaces(stage: Stage) -> None:
    await stage.user("eve")
    await stage.user("eve-x")
    await stage.api("POST", "/users/eve/servers/x", expect=202)
    await stage.api("POST", "/users/eve-x/server", expect=202)
    await stage.until_ready("eve", "x")
    await stage.until_ready("eve-x")
    names = {c.workspace.name for c in stage.worker.commands if c.workspace.user in {"eve", "eve-x"}}
    assert len(names) == 2
