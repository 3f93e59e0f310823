"""Who says that connecting does not start his workspace, and names that no new workspace can have."""

import pytest

from tests.hub.conftest import Stage
from tests.support.hub_process import Api

pytestmark = pytest.mark.asyncio(loop_scope="module")

GATEWAY_TOKEN = "the-token-of-the-ssh-gateway"
OFF, ON = {"user_options": {"start_on_ssh": False}}, {"user_options": {"start_on_ssh": True}}


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {"MLHUB_SSH_GATEWAY_HUB_API_TOKEN": GATEWAY_TOKEN}


async def options_of(stage: Stage, user: str, server: str) -> dict[str, object]:
    model = await stage.api("GET", f"/users/{user}/servers/{server}", expect=200)
    return dict(model["user_options"] or {})


async def test_a_connection_does_not_start_what_its_owner_wants_to_start_himself(stage: Stage) -> None:
    gateway, path = Api(stage.hub, GATEWAY_TOKEN), "/users/una/servers/x"
    await stage.user("una")
    owner = await stage.token_of("una")
    await owner("PUT", path, {"user_options": {"start_on_ssh": False, "cpu_limit": 1}}, expect=201)
    refusal = await gateway("POST", path, {}, expect=403)
    assert "Start it on its page" in refusal["message"]
    assert not stage.worker.spawns_of("ws-una-test-x")
    assert await owner.status("POST", path) == 202
    await stage.until_ready("una", "x")
    # It runs: there is nothing to start, and nothing to refuse.
    assert (await gateway("POST", path, {}, expect=400))["message"].endswith("is already running")
    assert stage.worker.spawns_of("ws-una-test-x")[-1].spec.cpu_limit == 1


async def test_it_is_switched_alone_while_the_workspace_runs_and_for_every_start_after(stage: Stage) -> None:
    gateway, path = Api(stage.hub, GATEWAY_TOKEN), "/users/vic/servers/x"
    await stage.user("vic")
    owner = await stage.token_of("vic")
    assert await owner.status("POST", path, {"user_options": {"cpu_limit": 2, "secret_env": {"S": "v"}}}) == 202
    await stage.until_ready("vic", "x")
    first = stage.worker.spawns_of("ws-vic-test-x")
    await owner("PATCH", path, OFF, expect=200)
    assert await options_of(stage, "vic", "x") == {"cpu_limit": 2, "secret_env": {"S": None}, "start_on_ssh": False}
    assert await owner.status("DELETE", path) in {202, 204}
    await stage.until_gone("vic", "x")
    await gateway("POST", path, {}, expect=403)
    await owner("PATCH", path, ON, expect=200)
    assert await gateway.status("POST", path, {}) == 202
    await stage.until_ready("vic", "x")
    [again] = stage.worker.spawns_of("ws-vic-test-x")[len(first) :]
    assert (again.spec.cpu_limit, again.spec.secret_env) == (2, ("S",))
    await stage.api("DELETE", path)
    await stage.until_gone("vic", "x")
    # Given alone to a start, it leaves the other options as they are too.
    assert await owner.status("POST", path, OFF) == 202
    await stage.until_ready("vic", "x")
    assert (await options_of(stage, "vic", "x"))["cpu_limit"] == 2


async def test_what_is_no_answer_to_the_question_is_refused(stage: Stage) -> None:
    await stage.user("wim")
    await stage.api("PUT", "/users/wim/servers/x", {"user_options": {}}, expect=201)
    refusal = await stage.api(
        "PATCH", "/users/wim/servers/x", {"user_options": {"start_on_ssh": "perhaps"}}, expect=400
    )
    assert refusal["message"].startswith("start_on_ssh")
    await stage.api("PATCH", "/users/wim/servers/y", OFF, expect=404)
    stranger = await stage.token_of("wim")
    assert await stranger.status("PATCH", "/users/una/servers/x", ON) in {403, 404}


@pytest.mark.parametrize("name", ["tools", "shared"])
async def test_a_name_that_stands_in_the_addresses_of_tools_is_no_workspaces(stage: Stage, name: str) -> None:
    user = f"res{name}"
    await stage.user(user)
    await stage.api("PUT", f"/users/{user}/servers/x", {"user_options": {}}, expect=201)
    for method, path, body in [
        ("PUT", f"/users/{user}/servers/{name}", None),
        ("POST", f"/users/{user}/servers/{name}", None),
        ("PATCH", f"/users/{user}/servers/x", {"name": name}),
    ]:
        refusal = await stage.api(method, path, body, expect=400)
        assert "part of the addresses" in refusal["message"]
    assert await stage.api.status("GET", f"/users/{user}/servers/{name}") == 404


async def test_it_may_stand_plainly_in_the_body_as_in_that_of_a_start(stage: Stage) -> None:
    await stage.user("xia")
    path = "/users/xia/servers/x"
    await stage.api("PUT", path, {"user_options": {"cpu_limit": 1}}, expect=201)
    await stage.api("PATCH", path, {"start_on_ssh": False}, expect=200)
    assert await options_of(stage, "xia", "x") == {"cpu_limit": 1, "start_on_ssh": False}
    refusal = await stage.api("PATCH", path, {"start_by_ssh": False}, expect=400)
    assert refusal["message"].startswith("start_by_ssh")
