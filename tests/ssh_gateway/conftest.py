"""A gateway with everything around it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mlhub_shared.bus import Bus
from tests.ssh_gateway.place import Place, make_place
from tests.support.hub_api import ScriptedHub, scripted_hub
from tests.support.nats_server import NatsServer


@pytest.fixture
async def hub() -> AsyncIterator[ScriptedHub]:
    """A hub that knows alice, bob and the admin root."""
    async with scripted_hub() as hub:
        hub.add_user("alice", "gpu1")
        hub.add_user("bob")
        hub.add_user("root", admin=True)
        yield hub


@pytest.fixture
async def quiet_place(tmp_path: Path, nats_server: NatsServer, bus: Bus, hub: ScriptedHub) -> AsyncIterator[Place]:
    """A place where no gateway runs yet."""
    async with make_place(tmp_path, nats_server, bus, hub) as place:
        yield place


@pytest.fixture
async def place(quiet_place: Place) -> AsyncIterator[Place]:
    """A place with a gateway, and alice's default workspace ready."""
    await quiet_place.put("alice")
    async with quiet_place.gateway():
        yield quiet_place
