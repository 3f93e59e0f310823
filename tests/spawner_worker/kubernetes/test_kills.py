"""A worker that dies between any two writes: the next one goes on, and nothing is started twice or left."""

import asyncio
import contextlib
from datetime import timedelta

import pytest

from mlhub_shared.contracts.workspace import Phase
from mlhub_shared.errors import MLHubError
from tests.spawner_worker.kubernetes.conftest import Stand
from tests.support.makers import NEWEST
from tests.support.waiting import until

ALICE = "ws-alice-test"
NOW = timedelta(0)
WRITES = 8
"""Of a whole life; the kill after the last one finds nothing to do."""


async def live_until(stand: Stand, count: int, *, is_mount_volume: bool) -> None:
    """A worker takes a workspace through its life, and dies after so many writes."""
    dies, seen = asyncio.Event(), 0

    def matches(verb: str, _: str) -> bool:
        nonlocal seen
        seen += verb in {"create", "patch", "delete"}
        if seen > count:
            dies.set()
        return dies.is_set()

    async with stand.backend() as backend:
        stand.cluster.faults.broken(times=10**6, matches=matches)
        job = stand.job(is_mount_volume=is_mount_volume)

        async def life() -> None:
            await stand.run(backend, job)
            await backend.remember(job.record.model_copy(update={"phase": Phase.READY}))
            await backend.stop(ALICE, grace=NOW, up_to=NEWEST)
            await backend.remember(job.record.model_copy(update={"phase": Phase.STOPPED, "generation": 2}))
            await backend.erase(ALICE, up_to=NEWEST)

        with contextlib.suppress(MLHubError):
            await life()
    stand.cluster.faults.clear()


@pytest.mark.parametrize("count", range(WRITES + 1))
@pytest.mark.parametrize("is_mount_volume", [True, False], ids=["volume", "no-volume"])
async def test_the_next_worker_finishes_a_start(stand: Stand, count: int, is_mount_volume: bool) -> None:
    await live_until(stand, count, is_mount_volume=is_mount_volume)
    async with stand.backend() as backend:
        await backend.inventory()
        job = stand.job(is_mount_volume=is_mount_volume)
        assert (await stand.run(backend, job)).generation == 1
        assert len(stand.cluster.objects("pods")) == 1
        assert len(stand.cluster.objects("services")) == 1
        await backend.stop(ALICE, grace=NOW, up_to=NEWEST)
        await backend.erase(ALICE, up_to=NEWEST)
    await until(lambda: not stand.left())


@pytest.mark.parametrize("count", range(WRITES + 1))
@pytest.mark.parametrize("is_mount_volume", [True, False], ids=["volume", "no-volume"])
async def test_the_next_worker_finishes_a_deletion(stand: Stand, count: int, is_mount_volume: bool) -> None:
    await live_until(stand, count, is_mount_volume=is_mount_volume)
    async with stand.backend() as backend:
        await backend.stop(ALICE, grace=NOW, up_to=NEWEST)
        await backend.erase(ALICE, up_to=NEWEST)
        assert await backend.inventory() == []
    await until(lambda: not stand.left())
