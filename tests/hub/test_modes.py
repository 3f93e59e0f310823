"""The three ways a team uses the hub, as they hold over the REST API."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.hub.conftest import Stage
from tests.support.hub_process import Api

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["self-service", "handed-out", "one-each"])
async def mode(stage: Stage, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    mode = request.param
    await stage.hub.stop()
    stage.hub.set(MLHUB_HUB_WORKSPACES=mode)
    await stage.hub.start()
    yield mode


@pytest_asyncio.fixture(loop_scope="module")
async def people(stage: Stage, mode: str, request: pytest.FixtureRequest) -> tuple[str, Api, Api]:
    """A user's name, his API, and an admin's."""
    name = f"u{abs(hash(request.node.name)) % 10**8}"
    boss = f"b{name}"
    await stage.user(name)
    await stage.user(boss, admin=True)
    return name, await stage.token_of(name), await stage.token_of(boss)


async def test_who_makes_a_named_workspace(stage: Stage, mode: str, people: tuple[str, Api, Api]) -> None:
    name, user, boss = people
    own = await user.response("POST", f"/users/{name}/servers/mine", {"cpu_limit": 1})
    created = await user.status("PUT", f"/users/{name}/servers/other", {"user_options": {}})
    if mode == "self-service":
        assert (own.status_code, created) == (202, 201)
    else:
        assert (own.status_code, created) == (403, 403)
        assert ("admin" if mode == "handed-out" else "one workspace") in own.json()["message"]
        assert await stage.api.status("GET", f"/users/{name}/servers/mine") == 404
    # The admin keeps his rights in every mode, for others and for himself.
    assert await boss.status("POST", f"/users/{name}/servers/given", {"cpu_limit": 1}) == 202
    assert await boss.status("POST", f"/users/b{name}/servers/own", {}) == 202
    assert await user.status("POST", f"/users/b{name}/servers/spy", {}) == 404


async def test_what_was_handed_out_is_started_and_stopped_by_its_user(
    stage: Stage, mode: str, people: tuple[str, Api, Api]
) -> None:
    name, user, boss = people
    await boss("PUT", f"/users/{name}/servers/given", {"user_options": {"cpu_limit": 1}}, expect=201)
    await boss("PATCH", f"/users/{name}/servers/given", {"user_options": {"cpu_limit": 2}}, expect=200)
    for _ in range(2):
        assert await user.status("POST", f"/users/{name}/servers/given", {}) == 202
        await stage.until_ready(name, "given")
        assert await user.status("DELETE", f"/users/{name}/servers/given") == 204
    spawns = stage.worker.spawns_of(f"ws-{name}-test-given")
    assert [spawn.spec.cpu_limit for spawn in spawns] == [2, 2]


async def test_who_gives_it_another_title(stage: Stage, mode: str, people: tuple[str, Api, Api]) -> None:
    name, user, boss = people
    path = f"/users/{name}/servers/given"
    await boss("PUT", path, {"display_name": "As given"}, expect=201)
    for body in ({"display_name": "Mine"}, {"user_options": {"display_name": "Mine"}}):
        assert await user.status("POST", path, body) == (403 if mode == "handed-out" else 202)
        if mode != "handed-out":
            await stage.until_ready(name, "given")
            await user("DELETE", path, expect=204)
    kept = "As given" if mode == "handed-out" else "Mine"
    assert (await boss("GET", path, expect=200))["display_name"] == kept
    assert await user.status("POST", path, {"display_name": kept}) == 202, "it is called so already"
    await stage.until_ready(name, "given")


async def test_who_changes_and_deletes_it(stage: Stage, mode: str, people: tuple[str, Api, Api]) -> None:
    name, user, boss = people
    path = f"/users/{name}/servers/given"
    await boss("PUT", path, {"user_options": {"cpu_limit": 1}}, expect=201)
    changed = await user.status("PATCH", path, {"user_options": {"cpu_limit": 2}})
    renamed = await user.status("PATCH", path, {"name": "new", "display_name": "new"})
    if renamed == 200:
        await user("PATCH", f"/users/{name}/servers/new", {"name": "given", "display_name": "x"}, expect=200)
    started = await user.status("POST", path, {"cpu_limit": 3})
    if started == 202:
        await stage.until_ready(name, "given")
        await user("DELETE", path, expect=204)
    deleted = await user.status("DELETE", path, {"remove": True})
    assert [changed, renamed, started, deleted] == {
        "self-service": [200, 200, 202, 204],
        "handed-out": [403, 403, 403, 403],
        "one-each": [200, 403, 202, 403],
    }[mode]
    if mode == "handed-out":
        assert (await boss("GET", path, expect=200))["user_options"] == {"cpu_limit": 1}
    if deleted == 403:
        assert await boss.status("DELETE", path, {"remove": True}) == 204


async def test_the_default_workspace(stage: Stage, mode: str, people: tuple[str, Api, Api]) -> None:
    name, user, boss = people
    first = await user.status("POST", f"/users/{name}/server", {})
    if mode != "handed-out":
        assert first == 202
        return
    assert first == 403
    assert await boss.status("POST", f"/users/{name}/server", {}) == 202
    await stage.until_ready(name)
    assert await user.status("DELETE", f"/users/{name}/server") == 204
    assert await user.status("POST", f"/users/{name}/server", {}) == 202
    await stage.until_ready(name)
