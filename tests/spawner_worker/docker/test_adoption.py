"""What a new worker finds: with the directory of the one before it, and without."""

import shutil
from datetime import timedelta

import pytest

from mlhub_shared.contracts.workspace import Phase
from mlhub_shared.errors import Permanent
from mlhub_spawner_worker.backends.base import BackendError
from tests.spawner_worker.docker.conftest import Stand
from tests.support.docker_engine import IMAGE
from tests.support.makers import NEWEST
from tests.support.waiting import until_async

AT_ONCE = timedelta(0)


async def test_what_runs_is_adopted_as_it_is(stand: Stand) -> None:
    job = stand.job()
    async with stand.backend() as backend:
        started = await stand.run(backend, job)
    async with stand.backend() as backend:
        (found,) = await backend.inventory()
        assert (found.record, found.running) == (job.record, started)
        assert await backend.start(job) == started
        assert backend.session(job.name) is not None
        await backend.stop(job.name, grace=AT_ONCE, up_to=NEWEST)
        assert (await backend.wait(job.name)).code == -9


async def test_a_death_that_no_worker_saw_is_told_to_the_next(stand: Stand) -> None:
    job = stand.job(env={"FAKE_EXIT": "5"})
    async with stand.backend() as backend:
        await stand.run(backend, job)
        await backend.wait(job.name)
    async with stand.backend() as backend:
        end = await backend.wait(job.name)
        assert end.code == 5
        assert "gives up" in end.log_tail


async def test_records_are_rebuilt_from_labels_when_the_directory_is_lost(stand: Stand) -> None:
    job = stand.job("Alice@Example", "gpu 1", env={"COLOUR": "blue"}, cpu_limit=0.5, profile="default")
    idle = stand.job("bob")
    async with stand.backend() as backend:
        started = await stand.run(backend, job)
        await stand.run(backend, idle)
        await backend.stop(idle.name, grace=AT_ONCE, up_to=NEWEST)
    shutil.rmtree(stand.folder)
    async with stand.backend() as backend:
        found = {one.record.name: one for one in await backend.inventory()}
        assert found.keys() == {job.name, idle.name}
        rebuilt = found[job.name].record
        assert found[job.name].running == started
        assert (rebuilt.workspace, rebuilt.spec) == (job.record.workspace, job.record.spec)
        assert (rebuilt.generation, rebuilt.base_url) == (1, job.record.base_url)
        assert rebuilt.phase is Phase.STARTING
        # Its volume is all that is left of the other one.
        assert found[idle.name].record.phase is Phase.STOPPED
        assert found[idle.name].record.base_url == idle.record.base_url
        await backend.erase(idle.name, up_to=NEWEST)
        assert [one.record.name for one in await backend.inventory()] == [job.name]


async def test_one_directory_is_one_worker_s(stand: Stand) -> None:
    async with stand.backend():
        with pytest.raises(Permanent, match="another worker"):
            async with stand.backend():
                pass


async def test_networks_come_and_go_with_the_workspaces_of_their_user(stand: Stand) -> None:
    async with stand.backend(own_networks=True) as backend:
        first, second, other = stand.job(), stand.job("alice", "two"), stand.job("bob")
        for job in (first, second, other):
            await stand.run(backend, job)
        assert len(await stand.names("networks")) == 2
        mates = [(await stand.inspect(job.name))["NetworkSettings"]["Networks"].keys() for job in (first, second)]
        assert mates[0] == mates[1]
        kinds = sorted(resource.kind for resource in await backend.resources())
        assert kinds == ["container"] * 3 + ["network"] * 2 + ["volume"] * 3
        for job in (first, second, other):
            await backend.stop(job.name, grace=AT_ONCE, up_to=NEWEST)
            await backend.erase(job.name, up_to=NEWEST)

        async def nothing_is_left() -> bool:
            return not await backend.resources()

        await until_async(nothing_is_left)


async def test_the_network_of_a_start_that_failed_early_goes_with_its_workspace(stand: Stand) -> None:
    job = stand.job()
    await stand.docker.containers.create({"Image": IMAGE}, name=job.name)
    try:
        async with stand.backend(own_networks=True) as backend:
            with pytest.raises(BackendError):
                await stand.run(backend, job)

            async def has_networks(wanted: int) -> bool:
                return len(await stand.names("networks")) == wanted

            await until_async(lambda: has_networks(1))
            await backend.erase(job.name, up_to=NEWEST)
            await until_async(lambda: has_networks(0))
    finally:
        await stand.docker.containers.container(job.name).delete(force=True)
