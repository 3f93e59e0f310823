"""Fixtures for all tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mlhub_shared.bus import Bus, BusSettings
from tests.support.nats_server import PASSWORD, USER, NatsServer


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of all tests."""
    parser.addoption("--chaos-seeds", type=int, default=2, help="how many seeds the chaos test tries (default: 2)")


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A real nats-server with JetStream, with a login."""
    server = await NatsServer(tmp_path / "nats").start()
    yield server
    await server.stop()


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    """A bus of the deployment `test`, provisioned."""
    bus = await Bus.open(bus_settings(nats_server))
    yield bus
    await bus.close()


def bus_settings(server: NatsServer, service: str = "tests", *, replicas: int = 1) -> BusSettings:
    """How to connect to that server."""
    return BusSettings(url=server.url, hub="test", service=service, user=USER, password=PASSWORD, replicas=replicas)
