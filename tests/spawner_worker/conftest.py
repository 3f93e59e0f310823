"""Fixtures of the worker's tests."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mlhub_shared.bus import Bus
from tests.support.attach_places import (
    PYTHON_IMAGE,
    Place,
    any_pod_place,
    container_place,
    engine_problem,
    local_place,
    running_container,
)
from tests.support.middle_box import MiddleBox
from tests.support.pods import HAS_CLUSTER, Pods, fake_pods, real_pods
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


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    """A container that a whole module enters."""
    if (problem := engine_problem(PYTHON_IMAGE)) is not None:
        pytest.skip(problem)
    with running_container(PYTHON_IMAGE) as name:
        yield name


@pytest.fixture(params=["local", "container", "kubernetes", *(["kubernetes-cluster"] if HAS_CLUSTER else [])])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """A workspace of this machine, then one in a container and one in a pod, behind the attach endpoint."""
    match request.param:
        case "local":
            way = local_place(tmp_path)
        case "container":
            way = container_place(tmp_path, request.getfixturevalue("container"))
        case kind:
            way = any_pod_place(tmp_path, is_fake=kind == "kubernetes")
    async with way as place:
        yield place


@pytest.fixture(params=["kubernetes", *(["kubernetes-cluster"] if HAS_CLUSTER else [])])
async def pods(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pods]:
    """Of a cluster of the test's own, then of the one that the environment names."""
    async with fake_pods(tmp_path) if request.param == "kubernetes" else real_pods() as pods:
        yield pods


@pytest.fixture
async def box(pods: Pods) -> AsyncIterator[MiddleBox]:
    """What may lie between a worker and the API of these pods."""
    address = urlsplit(str(pods.configuration.host))
    async with MiddleBox.open(address.hostname or "", address.port or 443) as box:
        yield box


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Place]:
    """The one of this machine alone."""
    async with local_place(tmp_path) as place:
        yield place
