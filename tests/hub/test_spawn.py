"""A workspace's life over the REST API, with a real bus and a worker that does what it is told."""

import pytest

from tests.hub.conftest import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_workspace_is_started_over_the_bus(stage: Stage) -> None:
    await stage.user("alice")
    assert await stage.api.status("POST", "/users/alice/server") == 202
    await stage.until_ready("alice")
    [spawn] = stage.worker.spawns_of("ws-alice-test")
    assert spawn.base_url == "/user/alice/"
    assert spawn.requester == "service:automation"
