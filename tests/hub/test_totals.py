"""What one user may have in all, while nobody but the hub knows what he has asked for."""

import asyncio

import pytest

from mlhub_shared.contracts.commands import SpawnWorkspace
from tests.hub.conftest import Stage
from tests.hub.images import images_environment
from tests.support.waiting import until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")

LARGE = {"profile": "large"}
"""4 of the 6 cores that one user may have."""
REFUSED = "cpu_limit: your workspaces together may have 6 cores, and 2 are left"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return images_environment(tmp_path_factory.mktemp("profiles"))


@pytest.fixture(autouse=True)
def _no_worker_sees_a_command(stage: Stage) -> None:
    stage.worker.pause()


async def asked(stage: Stage, user: str, *servers: str) -> set[str]:
    """For which of these a start is on the bus."""
    found = {server: await stage.bus.last_command("default", f"ws-{user}-test-{server}") for server in servers}
    return {server for server, last in found.items() if last and isinstance(last[0], SpawnWorkspace)}


async def test_what_is_asked_for_counts_before_it_has_a_record(stage: Stage) -> None:
    await stage.user("two")
    await stage.user("other")
    await stage.api("POST", "/users/two/servers/a", LARGE, expect=202)
    assert (await stage.api("POST", "/users/two/servers/b", LARGE, expect=400))["message"] == REFUSED
    await stage.api("POST", "/users/other/servers/b", LARGE, expect=202)
    await stage.api("DELETE", "/users/two/servers/a")
    await stage.until_gone("two", "a")
    await stage.api("POST", "/users/two/servers/b", LARGE, expect=202)
    stage.worker.resume()
    await stage.until_ready("two", "b")
    assert (await stage.api("POST", "/users/two/servers/a", LARGE, expect=400))["message"] == REFUSED


@pytest.mark.parametrize("attempt", range(3))
async def test_of_many_starts_at_once_only_as_many_pass_as_fit(stage: Stage, attempt: int) -> None:
    user, servers = f"all{attempt}", ["a", "b", "c", "d"]
    await stage.user(user)
    starts = (stage.api.status("POST", f"/users/{user}/servers/{server}", LARGE) for server in servers)
    assert set(await asyncio.gather(*starts)) <= {202, 400}

    async def are_decided() -> bool:
        models = [await stage.api.server(user, server) for server in servers]
        return [model["pending"] for model in models if model is not None] == ["spawn"]

    await until_async(are_decided)
    assert len(await asked(stage, user, *servers)) == 1


async def test_what_the_hub_before_has_asked_for_counts(stage: Stage) -> None:
    await stage.user("kill")
    await stage.api("POST", "/users/kill/servers/a", LARGE, expect=202)
    await stage.hub.kill()
    await stage.hub.start()
    assert (await stage.api.server("kill", "a") or {})["pending"] == "spawn"
    assert (await stage.api("POST", "/users/kill/servers/b", LARGE, expect=400))["message"] == REFUSED
    stage.worker.resume()
    await stage.until_ready("kill", "a")
