"""The contract that every backend keeps; a new backend is one more line in BACKENDS."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import Phase, WorkspaceSecrets, WorkspaceSpec
from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends.base import Backend, Job
from mlhub_spawner_worker.backends.process import ProcessBackend, ProcessSettings
from tests.support.docker_engine import deployment, docker_backend, new_hub
from tests.support.kube import FakeCluster
from tests.support.kube_backend import cluster_backend, fake_backend, left_clean, need_cluster
from tests.support.makers import NEWEST, record
from tests.support.scripted_backend import ScriptedBackend
from tests.support.waiting import until_async
from tests.support.workers import FAKE_SERVER

HUB = new_hub()
"""Of this run: the engine may be shared with others."""


def workspace(user: str = "alice") -> WorkspaceId:
    return WorkspaceId(hub=HUB, user=user)


ALICE, BOB = workspace().name, workspace("bob").name
GRACE = timedelta(seconds=1)
SOON = 30


async def process(folder: Path) -> AsyncIterator[Backend]:
    settings = ProcessSettings(data_dir=folder, command=FAKE_SERVER.split(), environment={"PATH": "/usr/bin:/bin"})
    yield ProcessBackend(settings)


async def scripted(_: Path) -> AsyncIterator[Backend]:
    backend = ScriptedBackend()
    backend.cluster = "the-cluster"
    yield backend


async def docker(folder: Path) -> AsyncIterator[Backend]:
    async with deployment(HUB):
        yield docker_backend(folder, HUB)


async def kubernetes(folder: Path) -> AsyncIterator[Backend]:
    async with FakeCluster.open() as cluster:
        yield fake_backend(cluster, folder, HUB)


async def kubernetes_cluster(_: Path) -> AsyncIterator[Backend]:
    kubeconfig = need_cluster()
    async with left_clean(kubeconfig, HUB):
        yield cluster_backend(kubeconfig, HUB)


BACKENDS: list[Callable[[Path], AsyncIterator[Backend]]] = [process, scripted, docker, kubernetes, kubernetes_cluster]


@pytest.fixture(params=BACKENDS, ids=lambda make: make.__name__)
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    async with contextlib.asynccontextmanager(request.param)(tmp_path) as backend:
        await backend.open()
        yield backend
        for found in await backend.inventory():
            await backend.stop(found.record.name, grace=timedelta(0), up_to=NEWEST)
            await backend.erase(found.record.name, up_to=NEWEST)
        await backend.aclose()


def job(user: str = "alice", *, generation: int = 1, env: dict[str, str] | None = None) -> Job:
    target = record(user, phase=Phase.PREPARING, generation=generation, spec=WorkspaceSpec(env=env or {}), node="n1")
    target = target.model_copy(update={"workspace": workspace(user)})
    return Job(target, WorkspaceSecrets(generation=generation))


async def report(percent: int, message: str) -> None:
    assert 0 <= percent <= 100
    assert message


async def running(backend: Backend) -> dict[str, int]:
    return {
        found.record.name: found.running.generation for found in await backend.inventory() if found.running is not None
    }


async def test_what_was_started_runs_until_it_is_stopped(backend: Backend) -> None:
    await backend.prepare(job(), report)
    started = await backend.start(job())
    assert started.boot == backend.boot
    assert await running(backend) == {ALICE: 1}
    assert (await backend.describe(ALICE)).running
    await backend.stop(ALICE, grace=GRACE, up_to=NEWEST)
    assert await running(backend) == {}
    assert not (await backend.describe(ALICE)).running
    assert backend.session(ALICE) is None


async def test_preparing_and_starting_again_changes_nothing(backend: Backend) -> None:
    for _ in range(2):
        await backend.prepare(job(), report)
    assert await backend.start(job()) == await backend.start(job())


async def test_a_newer_generation_takes_the_place_of_an_older(backend: Backend) -> None:
    await backend.prepare(job(), report)
    await backend.start(job())
    await backend.start(job(generation=2))
    assert await running(backend) == {ALICE: 2}


async def test_a_worker_that_comes_late_takes_no_newer_generation_s_place(backend: Backend) -> None:
    if backend.cluster is None:
        pytest.skip("its worker is the only one")
    await backend.prepare(job(generation=2), report)
    await backend.start(job(generation=2))
    with pytest.raises(Temporary):
        await backend.prepare(job(), report)
    with pytest.raises(Temporary):
        await backend.start(job())
    assert await running(backend) == {ALICE: 2}


async def test_a_worker_that_comes_late_ends_and_erases_nothing_newer(backend: Backend) -> None:
    await backend.prepare(job(generation=5), report)
    await backend.start(job(generation=5))
    await backend.stop(ALICE, grace=GRACE, up_to=6)
    await backend.erase(ALICE, up_to=6)
    await backend.prepare(job(generation=7), report)
    started = await backend.start(job(generation=7))
    there = await backend.resources()
    await backend.stop(ALICE, grace=GRACE, up_to=6)
    await backend.erase(ALICE, up_to=6)
    assert await running(backend) == {ALICE: 7}
    assert await backend.resources() == there
    assert await backend.start(job(generation=7)) == started


async def test_stopping_and_erasing_what_is_not_there_is_no_error(backend: Backend) -> None:
    for _ in range(2):
        await backend.stop(ALICE, grace=GRACE, up_to=NEWEST)
        await backend.erase(ALICE, up_to=NEWEST)
    assert (await backend.wait(ALICE)).code is None


async def test_waiting_ends_with_the_workspace_whatever_ended_it(backend: Backend) -> None:
    await backend.prepare(job(), report)
    await backend.start(job())
    waiting = asyncio.ensure_future(backend.wait(ALICE))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await backend.stop(ALICE, grace=GRACE, up_to=NEWEST)
    end = await asyncio.wait_for(waiting, SOON)
    assert end.code is not None
    assert end.code < 0


async def test_a_death_before_anybody_waited_is_told_to_who_asks(backend: Backend) -> None:
    wanted = job(env={"FAKE_EXIT": "3"})
    await backend.prepare(wanted, report)
    await backend.start(wanted)
    assert (await asyncio.wait_for(backend.wait(ALICE), SOON)).code == 3
    assert (await asyncio.wait_for(backend.wait(ALICE), SOON)).code == 3


async def test_one_workspace_does_not_touch_another(backend: Backend) -> None:
    for user in ("alice", "bob"):
        await backend.prepare(job(user), report)
        await backend.start(job(user))
    await backend.stop(ALICE, grace=GRACE, up_to=NEWEST)
    await backend.erase(ALICE, up_to=NEWEST)
    assert await running(backend) == {BOB: 1}
    assert {resource.workspace for resource in await backend.resources()} == {workspace("bob")}


async def test_what_is_remembered_comes_with_the_inventory_until_it_is_erased(backend: Backend) -> None:
    await backend.prepare(job(), report)
    await backend.start(job())
    known = job().record.model_copy(update={"message": "remember me", "phase": Phase.READY})
    await backend.remember(known)
    assert [found.record for found in await backend.inventory()] == [known]
    await backend.stop(ALICE, grace=GRACE, up_to=NEWEST)
    assert [found.record for found in await backend.inventory()] == [known]
    await backend.erase(ALICE, up_to=NEWEST)
    await backend.remember(known)
    assert await backend.inventory() == []


async def test_a_start_that_nobody_waits_for_any_more_can_be_stopped(backend: Backend) -> None:
    await backend.prepare(job(), report)
    starting = asyncio.ensure_future(backend.start(job()))
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await backend.stop(ALICE, grace=GRACE, up_to=NEWEST)

    async def nothing_runs() -> bool:
        return await running(backend) == {}

    await until_async(nothing_runs)
