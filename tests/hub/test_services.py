"""What each service's token may do on a running hub, and what not."""

import pytest

from tests.hub.conftest import Stage
from tests.support.hub_process import Api

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLEANUP_TOKEN = "the-token-of-the-clean-up-service"
GATEWAY_TOKEN = "the-token-of-the-ssh-gateway"


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {
        "MLHUB_CLEANUP_HUB_API_TOKEN": CLEANUP_TOKEN,
        "MLHUB_SSH_GATEWAY_HUB_API_TOKEN": GATEWAY_TOKEN,
        "MLHUB_HUB_CLEANUP_URL": "http://127.0.0.1:9",
    }


async def _make(stage: Stage, user: str, *servers: str) -> None:
    await stage.user(user)
    for server in servers:
        await stage.api("PUT", f"/users/{user}/servers/{server}", {"user_options": {}}, expect=201)


async def test_automation_has_every_right_of_an_admin(stage: Stage) -> None:
    await _make(stage, "aut", "x")
    scopes = (await stage.api("GET", "/user", expect=200))["scopes"]
    assert {"admin:users", "admin:servers", "access:servers", "tokens", "shutdown", "custom:cleanup:run"} <= set(scopes)


async def test_cleanup_lists_and_removes_but_starts_nothing(stage: Stage) -> None:
    await _make(stage, "cle", "x")
    cleanup = Api(stage.hub, CLEANUP_TOKEN)
    model = (await cleanup("GET", "/users?include_stopped_servers", expect=200))[0]
    assert {"name", "servers", "last_activity"} <= model.keys()
    assert await cleanup.status("POST", "/users/cle/servers/x", {}) in {403, 404}
    assert await cleanup.status("DELETE", "/users/cle") in {403, 404}
    assert await cleanup.status("DELETE", "/users/cle/servers/x", {"remove": True}) == 204
    assert await stage.api.status("GET", "/users/cle/servers/x") == 404


async def test_the_gateway_starts_what_there_is_and_changes_nothing(stage: Stage) -> None:
    await _make(stage, "gat", "x")
    gateway = Api(stage.hub, GATEWAY_TOKEN)
    assert (await gateway("GET", "/users/gat", expect=200))["admin"] is False
    await gateway("GET", "/users/gat/servers/x", expect=200)
    await gateway("GET", "/users/gat/shared", expect=200)
    assert await gateway.status("GET", "/users/gat/shared/aut/x") == 404
    assert await gateway.status("POST", "/users/gat/servers/x", {}) == 202
    await stage.until_ready("gat", "x")
    activity = {"servers": {"x": {"last_activity": "2026-01-02T03:04:05+00:00"}}}
    assert await gateway.status("POST", "/users/gat/activity", activity) == 200
    for method, path in [
        ("DELETE", "/users/gat/servers/x"),
        ("DELETE", "/users/gat"),
        ("POST", "/users/gat/tokens"),
        ("PATCH", "/users/gat"),
        ("POST", "/users/another"),
        ("POST", "/shares/gat/x"),
    ]:
        assert await gateway.status(method, path, {}) in {403, 404}, path
    spawn = stage.worker.spawns_of("ws-gat-test-x")[0]
    assert spawn.requester == "service:ssh-gateway"


async def test_a_stranger_gets_nothing(stage: Stage) -> None:
    stranger = Api(stage.hub, "no-such-token")
    assert [await stranger.status("GET", path) for path in ("/users", "/user", "/users/aut")] == [403, 403, 403]
    assert (await stranger.response("GET", "/../metrics")).status_code == 403


async def test_every_admin_may_run_cleanups_now_and_after_a_restart(stage: Stage) -> None:
    await stage.user("boss", admin=True)
    await stage.user("worker")
    boss, worker = await stage.token_of("boss"), await stage.token_of("worker")
    assert "custom:cleanup:run" in (await boss("GET", "/user", expect=200))["scopes"]
    assert "custom:cleanup:run" not in (await worker("GET", "/user", expect=200))["scopes"]
    await stage.api("PATCH", "/users/worker", {"admin": True}, expect=200)
    assert "custom:cleanup:run" in (await worker("GET", "/user", expect=200))["scopes"]
    await stage.api("PATCH", "/users/boss", {"admin": False}, expect=200)
    await stage.hub.kill()
    await stage.hub.start()
    assert "custom:cleanup:run" in (await worker("GET", "/user", expect=200))["scopes"]
    assert "admin:users" in (await worker("GET", "/user", expect=200))["scopes"]
    assert "custom:cleanup:run" not in (await boss("GET", "/user", expect=200))["scopes"]


async def test_the_routes_of_hub_and_services_are_on_the_bus(stage: Stage) -> None:
    table = stage.bus.start_table(stage.bus.routes)
    await table.synced()
    routes = {route.routespec: route.target for route in table.values()}
    assert routes == {"/": stage.hub.url, "/services/cleanup-service/": "http://127.0.0.1:9"}
