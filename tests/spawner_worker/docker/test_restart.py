"""An engine that ends and comes back: what died with it is told from what died alone, and nothing is started twice."""

import asyncio
import signal
from datetime import timedelta
from pathlib import Path

import aiodocker
import pytest

from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends.base import Running
from mlhub_spawner_worker.backends.docker import DockerBackend
from tests.spawner_worker.docker.conftest import Stand
from tests.support.docker_engine import docker_backend, new_hub
from tests.support.makers import NEWEST
from tests.support.second_engine import second_engine

AT_ONCE = timedelta(0)
SOON = 30

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_what_died_with_its_engine_has_no_code_and_another_boot(tmp_path: Path, how: signal.Signals) -> None:
    async with second_engine() as engine, aiodocker.Docker(engine.url) as docker:
        stand = Stand(docker, new_hub(), tmp_path / "data")
        async with stand.backend(engine_url=engine.url) as backend:
            alone, dies = stand.job("alice"), stand.job("bob")
            for job in (alone, dies):
                started = await stand.run(backend, job)
            await docker.containers.container(alone.name).kill(signal="SIGKILL")
            assert (await asyncio.wait_for(backend.wait(alone.name), SOON)).code == -9
            waiting = asyncio.ensure_future(backend.wait(dies.name))
            await engine.end(how)
            await asyncio.sleep(1)
            # Nobody knows yet.
            assert not waiting.done()
            await engine.start()
            end = await asyncio.wait_for(waiting, SOON)
            assert end.code is None
            assert backend.boot != started.boot
            await backend.stop(dies.name, grace=AT_ONCE, up_to=NEWEST)
            again = await stand.run(backend, dies)
            assert again.boot == backend.boot
            assert [one.record.name for one in await backend.inventory() if one.running] == [dies.name]


async def test_with_live_restore_nothing_dies_and_nothing_is_said_to_have(tmp_path: Path) -> None:
    async with second_engine("--live-restore") as engine, aiodocker.Docker(engine.url) as docker:
        stand = Stand(docker, new_hub(), tmp_path / "data")
        async with stand.backend(engine_url=engine.url) as backend:
            job = stand.job()
            started = await stand.run(backend, job)
            waiting = asyncio.ensure_future(backend.wait(job.name))
            await engine.end()
            await engine.start()
            await asyncio.wait_for(backend.engine.events.connected.wait(), SOON)
            (found,) = await backend.inventory()
            assert found.running == started
            assert backend.boot == started.boot
            assert not waiting.done()
            waiting.cancel()


async def start_for_certain(backend: DockerBackend, stand: Stand, user: str) -> Running:
    """As a driver does: again, as long as it may pass."""
    while True:
        try:
            return await stand.run(backend, stand.job(user))
        except Temporary:
            await asyncio.sleep(0.2)


async def test_ten_starts_over_a_restart_of_the_engine_end_in_ten_containers(tmp_path: Path) -> None:
    users = [f"user{number}" for number in range(10)]
    async with second_engine() as engine, aiodocker.Docker(engine.url) as docker:
        stand = Stand(docker, new_hub(), tmp_path / "data")
        async with stand.backend(engine_url=engine.url) as backend:
            starting = [asyncio.ensure_future(start_for_certain(backend, stand, user)) for user in users]
            await asyncio.sleep(1)
            await engine.end()
            await engine.start()
            await asyncio.gather(*starting)
            ends = await asyncio.gather(*(_ended(backend, stand.job(user).name) for user in users))
            for user, is_over in zip(users, ends, strict=True):
                if is_over:
                    await backend.stop(stand.job(user).name, grace=AT_ONCE, up_to=NEWEST)
                    await start_for_certain(backend, stand, user)
            assert len(await stand.names("containers")) == len(users)
            assert all(found.running for found in await backend.inventory())


async def _ended(backend: DockerBackend, name: str) -> bool:
    done, waiting = await asyncio.wait({asyncio.ensure_future(backend.wait(name))}, timeout=3)
    for task in waiting:
        task.cancel()
    return bool(done)


async def test_a_worker_that_opens_before_its_engine_waits_for_it(tmp_path: Path) -> None:
    async with second_engine() as engine:
        await engine.end()
        backend = docker_backend(tmp_path, new_hub(), engine_url=engine.url)
        opening = asyncio.ensure_future(backend.open())
        await asyncio.sleep(0.5)
        assert not opening.done()
        await engine.start()
        await asyncio.wait_for(opening, SOON)
        await backend.aclose()
