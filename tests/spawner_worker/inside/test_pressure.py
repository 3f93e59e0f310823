"""Whoever is slower than the other end holds it up, whatever engine lies between."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.attach_places import (
    BARE_IMAGE,
    NAME,
    Place,
    container_place,
    engine_problem,
    pod_place,
    running_container,
)
from tests.support.memory import resident
from tests.support.pods import HAS_CLUSTER, fake_pods, real_pods

MEGABYTE = 1 << 20


@pytest.fixture(params=["docker", "kubernetes", *(["kubernetes-cluster"] if HAS_CLUSTER else [])])
async def place(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """In a container, in a pod of the tests' own cluster, and in one of the cluster that the environment names."""
    async with contextlib.AsyncExitStack() as stack:
        if request.param != "docker":
            pods = fake_pods(tmp_path) if request.param == "kubernetes" else real_pods()
            yield await stack.enter_async_context(pod_place(tmp_path, await stack.enter_async_context(pods)))
        elif (problem := engine_problem(BARE_IMAGE)) is not None:
            pytest.skip(problem)
        else:
            name = stack.enter_context(running_container(BARE_IMAGE))
            yield await stack.enter_async_context(container_place(tmp_path, name))


async def test_a_slow_reader_holds_up_the_program_and_costs_no_memory(place: Place) -> None:
    await place.gateway.run(NAME, "head -c 3000000 /dev/zero")  # what the first one costs anyhow
    before = resident()
    client = await place.gateway.start(NAME, "head -c 104857600 /dev/zero; echo written >&2; exit 3")
    assert client.stdout is not None
    assert client.stderr is not None
    await asyncio.sleep(3)
    assert resident() - before < 16 * MEGABYTE
    size = 0
    while piece := await client.stdout.read(MEGABYTE):
        size += len(piece)
    assert (size, await client.stderr.read(), await client.wait()) == (100 * MEGABYTE, b"written\n", 3)


async def test_a_program_that_does_not_read_holds_up_its_client_and_costs_no_memory(place: Place) -> None:
    await place.gateway.run(NAME, "cat >/dev/null", stdin=bytes(3_000_000))
    before = resident()
    client = await place.gateway.start(NAME, "sleep 3; wc -c")
    writing = asyncio.ensure_future(client.communicate(bytes(100 * MEGABYTE)))
    await asyncio.sleep(2)
    # The test itself holds the 100 MB, once.
    assert resident() - before < 116 * MEGABYTE
    said, _ = await writing
    assert int(said) == 100 * MEGABYTE
