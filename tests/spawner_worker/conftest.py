"""Fixtures of the worker's tests."""

import pytest

from mlhub_shared.bus import Bus
from tests.support.scripted_backend import ScriptedBackend
from tests.support.workers import People


@pytest.fixture
def people(bus: Bus) -> People:
    """Who asks for workspaces."""
    return People(bus)


@pytest.fixture
async def scripted() -> ScriptedBackend:
    """A backend that outlives its workers."""
    return ScriptedBackend()
