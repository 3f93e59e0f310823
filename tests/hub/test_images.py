"""Profiles, images, totals and updates over the REST API."""

from typing import Any

import pytest

from mlhub_shared.contracts.workspace import Phase, Reason
from tests.hub.conftest import Stage
from tests.hub.images import images_environment
from tests.support.waiting import until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")

GIB = 1024**3


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return images_environment(tmp_path_factory.mktemp("profiles"))


async def started(stage: Stage, user: str, server: str, body: dict[str, Any] | None = None) -> Any:
    """What the worker was asked to run."""
    await stage.api("POST", f"/users/{user}/servers/{server}", body, expect=202)
    await stage.until_ready(user, server)
    return stage.worker.spawns_of(f"ws-{user}-test-{server}")[-1].spec


async def stopped(stage: Stage, user: str, server: str) -> None:
    await stage.api("DELETE", f"/users/{user}/servers/{server}", expect=204)
    await stage.until_gone(user, server)


async def test_who_asks_for_nothing_gets_the_first_profile(stage: Stage) -> None:
    await stage.user("ann")
    spec = await started(stage, "ann", "x")
    assert (spec.profile, spec.image, spec.cpu_limit, spec.mem_limit) == (
        "small",
        "registry.example/lab:1",
        1,
        2 * GIB,
    )
    model = await stage.api("GET", "/users/ann/servers/x", expect=200)
    assert model["workspace"]["image"] == "registry.example/lab:1"
    assert model["workspace"]["status"] == "ready"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"profile": "none"}, "profile: there is no 'none' here; choose one of small, large"),
        ({"image": "evil:1"}, "image: 'evil:1' is not allowed here; it must match one of registry.example/team/*"),
        ({"cpu_limit": 3}, "cpu_limit: must be at most 2 cores"),
        ({"profile": "large", "cpu_limit": 7}, "cpu_limit: your workspaces together may have 6 cores, and 6 are left"),
        ({"profile": "large", "gpus": "0,1,2"}, "gpus: must be at most 2 GPUs"),
        ({"profile": "large", "shm_size": "5G"}, "shm_size: must be at most"),
        ({"display_name": "two  \u0007bells"}, "display_name: must be letters, digits, signs and single spaces"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_profile_and_policy_don_t_allow_is_a_400(
    stage: Stage, options: dict[str, Any], sentence: str
) -> None:
    if await stage.api.status("GET", "/users/rob") == 404:
        await stage.user("rob")
    for method, body in [("POST", options), ("POST", {"user_options": options}), ("PUT", {"user_options": options})]:
        answer = await stage.api(method, "/users/rob/servers/x", body, expect=400)
        assert sentence in answer["message"], answer
    assert await stage.api.status("GET", "/users/rob/servers/x") == 404


async def test_gpus_are_refused_at_once_where_no_machine_has_one(stage: Stage) -> None:
    await stage.user("gus")
    body = {"profile": "large", "gpus": "0"}
    answer = await stage.api("POST", "/users/gus/servers/x", body, expect=400)
    assert answer["message"].startswith("gpus: ")
    stage.worker.say(gpus=("0", "1"), gpus_free=("0", "1"))

    async def is_accepted() -> bool:
        return await stage.api.status("POST", "/users/gus/servers/x", body) == 202

    await until_async(is_accepted)
    await stage.until_ready("gus", "x")
    assert stage.worker.spawns_of("ws-gus-test-x")[-1].spec.gpus == "0"
    stage.worker.say(gpus=(), gpus_free=())


async def test_an_image_that_a_pattern_allows_is_run(stage: Stage) -> None:
    await stage.user("tim")
    spec = await started(stage, "tim", "x", {"image": "registry.example/team/ours:2"})
    assert (spec.profile, spec.image) == ("small", "registry.example/team/ours:2")


async def test_what_one_user_has_up_counts_and_nothing_else(stage: Stage) -> None:
    await stage.user("tot")
    await stage.user("other")
    await started(stage, "tot", "a", {"profile": "large"})
    await started(stage, "other", "a", {"profile": "large"})
    await stage.api("PUT", "/users/tot/servers/b", {"user_options": {"profile": "large"}}, expect=201)
    for body in ({"profile": "large"}, None):
        answer = await stage.api("POST", "/users/tot/servers/b", body, expect=400)
        assert answer["message"] == "cpu_limit: your workspaces together may have 6 cores, and 2 are left"
    assert not stage.worker.spawns_of("ws-tot-test-b")
    await stopped(stage, "tot", "a")
    await started(stage, "tot", "b")


async def test_an_update_is_for_one_start_and_keeps_the_options(stage: Stage) -> None:
    await stage.user("upd")
    first = await started(stage, "upd", "x", {"profile": "large", "env": {"A": "b"}, "display_name": "Old one"})
    assert not first.update
    await stopped(stage, "upd", "x")
    second = await started(stage, "upd", "x", {"update": True})
    assert second == first.model_copy(update={"update": True})
    await stage.api("POST", "/users/upd/servers/x", {"update": True}, expect=400)
    await stopped(stage, "upd", "x")
    assert await started(stage, "upd", "x") == first, "a plain start after it fetches nothing"
    await stopped(stage, "upd", "x")
    retitled = await started(stage, "upd", "x", {"user_options": {"update": True, "display_name": "New one"}})
    assert retitled == first.model_copy(update={"update": True, "display_name": "New one"})
    await stopped(stage, "upd", "x")
    for once in ({"update": True}, {"update": True, "display_name": "Old one"}):
        await stage.api("PATCH", "/users/upd/servers/x", {"user_options": once}, expect=200)
    assert await started(stage, "upd", "x") == first
    await stopped(stage, "upd", "x")
    changed = await started(stage, "upd", "x", {"user_options": {"update": True, "cpu_limit": 2}})
    assert (changed.update, changed.cpu_limit, changed.env) == (True, 2, {})
    model = await stage.api("GET", "/users/upd/servers/x", expect=200)
    assert model["user_options"] == {"cpu_limit": 2}
    await stopped(stage, "upd", "x")
    await stage.api("PATCH", "/users/upd/servers/x", {"user_options": {"update": True, "cpu_limit": 1}}, expect=200)
    assert not (await started(stage, "upd", "x")).update, "what is only kept starts nothing"


async def test_a_refused_update_leaves_nothing_behind(stage: Stage) -> None:
    await stage.user("ref")
    await stage.api("POST", "/users/ref/servers/x", {"update": True, "cpu_limit": 99}, expect=400)
    await stage.api("POST", "/users/ref/servers/x", {"update": "perhaps"}, expect=400)
    assert not (await started(stage, "ref", "x")).update


async def test_a_display_name_is_a_title_and_no_option(stage: Stage) -> None:
    await stage.user("dis")
    spec = await started(stage, "dis", "x", {"display_name": "Grad descent", "cpu_limit": 2})
    assert (spec.display_name, spec.cpu_limit) == ("Grad descent", 2)
    model = await stage.api("GET", "/users/dis/servers/x", expect=200)
    assert (model["display_name"], model["user_options"]) == ("Grad descent", {"cpu_limit": 2})
    await stopped(stage, "dis", "x")
    await stage.api("PATCH", "/users/dis/servers/x", {"display_name": "Better"}, expect=200)
    assert (await started(stage, "dis", "x")).display_name == "Better"
    await stage.api("POST", "/users/dis/server", {"user_options": {"display_name": " My   own "}}, expect=202)
    await stage.until_ready("dis")
    assert (await stage.api("GET", "/users/dis/servers/", expect=200))["display_name"] == "My own"


@pytest.mark.parametrize("title", ["two\u0007bells", "desrever\u202e", "x" * 65, "x" * 300])
async def test_a_title_keeps_its_rule_wherever_it_stands(stage: Stage, title: str) -> None:
    name = f"tia{len(title)}{ord(title[-1])}"
    await stage.user(name)
    await stage.api("PUT", f"/users/{name}/servers/x", {"display_name": " Fine  one "}, expect=201)
    await started(stage, name, "y", {"display_name": "Second"})
    await stopped(stage, name, "y")
    for server, method in (("x", "POST"), ("x", "PATCH"), ("y", "POST"), ("y", "PATCH"), ("new", "PUT")):
        for body in ({"display_name": title}, {"user_options": {"display_name": title}}):
            answer = await stage.api(method, f"/users/{name}/servers/{server}", body, expect=400)
            assert answer["message"].startswith("display_name: "), answer
    assert await stage.api.status("POST", f"/users/{name}/server", {"display_name": title}) == 400
    model = await stage.api("GET", f"/users/{name}?include_stopped_servers", expect=200)
    assert [(key, server["display_name"]) for key, server in sorted(model["servers"].items()) if key] == [
        ("x", "Fine one"),
        ("y", "Second"),
    ]
    assert len([command for command in stage.worker.commands if command.workspace.user == name]) == 2


async def test_a_title_alone_leaves_the_options(stage: Stage) -> None:
    await stage.user("tom")
    wanted = {"profile": "large", "env": {"A": "b"}, "secret_env": {"S": "v"}}
    first = await started(stage, "tom", "x", wanted)
    await stopped(stage, "tom", "x")
    assert await started(stage, "tom", "x", {"display_name": "Titled"}) == first.model_copy(
        update={"display_name": "Titled"}
    )
    await stopped(stage, "tom", "x")
    entry = await stage.bus.secrets.get("ws-tom-test-x")
    assert entry is not None
    assert entry.value.secret_env == {"S": "v"}
    await stage.api("PATCH", "/users/tom/servers/x", {"display_name": 5}, expect=400)
    await stage.api("PATCH", "/users/tom/servers/x", {"user_options": {}}, expect=200)
    spec = await started(stage, "tom", "x")
    assert (spec.profile, spec.env, spec.display_name) == ("small", {}, "Titled"), "no options at all are usual ones"
    await stopped(stage, "tom", "x")
    await stage.api("POST", "/users/tom/server", {"display_name": "My own"}, expect=202)
    await stage.until_ready("tom")
    await stage.api("DELETE", "/users/tom/server", expect=204)
    assert (await stage.api("GET", "/users/tom/servers/", expect=200))["display_name"] == "My own"
    await stage.api("PATCH", "/users/tom/servers/", {"display_name": "Still mine"}, expect=200)
    assert (await stage.api("GET", "/users/tom/servers/", expect=200))["display_name"] == "Still mine"


async def test_a_failure_says_why_and_shows_its_log_in_the_api(stage: Stage) -> None:
    await stage.user("fay")
    stage.worker.spawn_until = Phase.STARTING
    try:
        await stage.api("POST", "/users/fay/servers/x", expect=202)
        await stage.until_phase("ws-fay-test-x", Phase.STARTING)
        async with stage.api.progress("fay", "x") as progress:
            await progress.until(message="Starting")
            await stage.worker.move(
                "ws-fay-test-x",
                Phase.FAILED,
                reason=Reason.IMAGE,
                message="There is no image registry.example/lab:1.",
                log_tail="the last words",
            )
            last = (await progress.to_end())[-1]
    finally:
        stage.worker.spawn_until = Phase.READY
    assert (last["failed"], last["reason"], last["log_tail"]) == (True, "image", "the last words")
    assert "There is no image registry.example/lab:1." in last["message"]
    await stage.until_gone("fay", "x")
    for path in ("/users/fay/servers/x", "/users/fay?include_stopped_servers", "/users?include_stopped_servers"):
        answer = await stage.api("GET", path, expect=200)
        found = answer if "workspace" in answer else _server(answer)
        told = found["workspace"]
        assert (told["status"], told["reason"], told["log_tail"]) == ("failed", "image", "the last words"), path


def _server(answer: Any) -> Any:
    [user] = [answer] if isinstance(answer, dict) else [user for user in answer if user["name"] == "fay"]
    return user["servers"]["x"]


async def test_the_pull_of_an_image_is_followed(stage: Stage) -> None:
    await stage.user("pul")
    stage.worker.spawn_until = Phase.PREPARING
    try:
        await stage.api("POST", "/users/pul/servers/x", expect=202)
        await stage.until_phase("ws-pul-test-x", Phase.PREPARING)
        async with stage.api.progress("pul", "x") as progress:
            await stage.worker.progress("ws-pul-test-x", 30, "Pulling image 340 of 1,200 MB")
            shown = await progress.until(message="Pulling image 340 of 1,200 MB")
            assert shown["progress"] == 30
            await stage.worker.move("ws-pul-test-x", Phase.READY)
            await progress.to_end()
    finally:
        stage.worker.spawn_until = Phase.READY


async def test_the_user_keeps_the_name_as_long_as_there_is_a_workspace(stage: Stage) -> None:
    await stage.user("ren")
    await stage.api("PUT", "/users/ren/servers/never-ran", {"user_options": {"secret_env": {"S": "v"}}}, expect=201)
    answer = await stage.api("PATCH", "/users/ren", {"name": "new"}, expect=400)
    assert "delete them first" in answer["message"]
    await stage.api("DELETE", "/users/ren/servers/never-ran", {"remove": True}, expect=204)
    assert await stage.bus.secrets.get("ws-ren-test-never-ran") is None
    await stage.api("PATCH", "/users/ren", {"name": "new"}, expect=200)
    spec = await started(stage, "new", "x")
    assert spec.profile == "small"
    await stopped(stage, "new", "x")
    await stage.api("PATCH", "/users/new", {"name": "newer"}, expect=400)
    await stage.api("PATCH", "/users/new", {"admin": True}, expect=200)
    assert not [c for c in stage.worker.commands if c.workspace.user in {"ren", "new"} and c.kind == "delete"]
