"""Fixtures for all tests, and the order of their files."""

import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mlhub_shared.bus import Bus, BusSettings
from tests.support.nats_server import PASSWORD, USER, NatsServer


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of all tests."""
    parser.addoption("--chaos-seeds", type=int, default=2, help="how many seeds the chaos test tries (default: 2)")


def pytest_configure() -> None:
    """Heed the signals that `nohup` and a shell's background have us ignore: what tests start inherits that."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files that are given most time: one that came last would keep one process busy, and no other."""
    if not hasattr(config, "workerinput"):
        return  # all in one process, where it makes no difference, and the quick ones are told of first
    size = Counter(item.path for item in items)
    longest: Counter[Path] = Counter()
    for item in items:
        if (mark := item.get_closest_marker("timeout")) is not None:
            longest[item.path] = max(longest[item.path], mark.args[0])
    items.sort(key=lambda item: (-longest[item.path], -size[item.path], item.path))


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
