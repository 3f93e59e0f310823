"""What a user keeps stays until it is deleted, and then as long as the policy says; nobody else ever gets it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends.base import BackendError
from mlhub_spawner_worker.backends.docker import DockerBackend
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.volumes import Volumes
from tests.spawner_worker.docker.conftest import Stand
from tests.support.docker_engine import ENGINE_URL, IMAGE
from tests.support.forwarder import forwarder
from tests.support.makers import NEWEST
from tests.support.waiting import until_async

AT_ONCE = timedelta(0)
WEEK = timedelta(days=7)


async def volume_of(stand: Stand, name: str) -> str:
    (mount,) = (await stand.inspect(name))["Mounts"]
    return str(mount["Name"])


async def delete(backend: DockerBackend, record: WorkspaceRecord) -> None:
    await backend.stop(record.name, grace=AT_ONCE, up_to=NEWEST)
    await backend.erase(record.name, up_to=NEWEST)


async def test_a_volume_outlives_a_stop_and_goes_with_its_workspace(stand: Stand) -> None:
    async with stand.backend() as backend:
        job = stand.job("alice", "gpu 1")
        await stand.run(backend, job)
        name = await volume_of(stand, job.name)
        assert name == job.name
        carried = (await (await stand.docker.volumes.get(name)).show())["Labels"]
        assert carried["mlhub.origin"] == stand.hub
        assert (carried["mlhub.user"], carried["mlhub.server_name"]) == ("alice", "gpu 1")
        await backend.stop(job.name, grace=AT_ONCE, up_to=NEWEST)
        assert await stand.names("volumes") == {name}
        await stand.run(backend, stand.job("alice", "gpu 1", generation=2))
        assert await volume_of(stand, job.name) == name
        await delete(backend, job.record)
        assert await stand.names("volumes") == set()
        assert await stand.names("containers") == set()


async def test_what_lies_in_the_home_is_kept_over_a_start(stand: Stand) -> None:
    async with stand.backend() as backend:
        for generation in (1, 2, 3):
            job = stand.job(generation=generation, env={"FAKE_WRITE": "/home/jovyan/hello.txt", "FAKE_EXIT": "0"})
            assert (await stand.ends(backend, job)).code == 0
            await backend.stop(job.name, grace=AT_ONCE, up_to=NEWEST)
        # The image's own file, and three lines more.
        body: dict[str, Any] = {
            "Image": IMAGE,
            "HostConfig": {"Mounts": [{"Type": "volume", "Source": job.name, "Target": "/v"}]},
        }
        look = await stand.docker.containers.create(body, name=f"{stand.hub}-look")
        try:
            archive = await look.get_archive("/v/hello.txt")
            file = archive.extractfile("hello.txt")
            assert file is not None
            assert file.read() == b"hello\n" + b"once more\n" * 3
        finally:
            await look.delete(force=True)


async def test_without_a_volume_nothing_is_kept(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job(is_mount_volume=False))
        assert await stand.names("volumes") == set()


async def test_a_kept_volume_is_nobody_s_and_goes_when_its_time_is_over(stand: Stand) -> None:
    job = stand.job()
    async with stand.backend(keep_volumes=WEEK) as backend:
        await stand.run(backend, job)
        await delete(backend, job.record)
        assert job.name in await stand.names("volumes")
        assert await backend.resources() == []
        await stand.run(backend, stand.job(generation=2))
        assert await volume_of(stand, job.name) == f"{job.name}.1"
        await delete(backend, job.record)
    async with stand.backend(keep_volumes=WEEK) as backend:
        # A kept volume is no workspace that was lost.
        assert await backend.inventory() == []
        await stand.run(backend, stand.job(generation=3))
        assert await volume_of(stand, job.name) == f"{job.name}.2"
    engine = Engine(ENGINE_URL, stand.hub)
    await engine.open()
    try:
        almost = Volumes(engine, stand.hub, keep=WEEK, clock=lambda: datetime.now(UTC) + WEEK - timedelta(minutes=5))
        await almost.sweep()
        assert {job.name, f"{job.name}.1", f"{job.name}.2"} <= await stand.names("volumes")
        over = Volumes(engine, stand.hub, keep=WEEK, clock=lambda: datetime.now(UTC) + WEEK)
        await over.sweep()
        assert await stand.names("volumes") == {f"{job.name}.2"}
    finally:
        await engine.aclose()


async def test_a_volume_in_a_stranger_s_hands_does_not_stop_a_deletion(stand: Stand) -> None:
    async with stand.backend() as backend:
        job = stand.job()
        await stand.run(backend, job)
        body: dict[str, Any] = {
            "Image": IMAGE,
            "HostConfig": {"Mounts": [{"Type": "volume", "Source": job.name, "Target": "/v"}]},
        }
        stranger = await stand.docker.containers.create(body, name=f"{stand.hub}-stranger")
        await delete(backend, job.record)
        await stand.run(backend, stand.job(generation=2))
        assert await volume_of(stand, job.name) != job.name
        await stranger.delete(force=True)
    async with stand.backend():
        # It is tried again, and nothing but that one goes.
        async def only_the_new_one() -> bool:
            return await stand.names("volumes") == {f"{job.name}.1"}

        await until_async(only_the_new_one)


async def test_a_volume_that_the_hub_has_not_made_is_not_mounted(stand: Stand) -> None:
    job = stand.job()
    stranger = await stand.docker.volumes.create({"Name": job.name})
    try:
        async with stand.backend() as backend:
            with pytest.raises(BackendError, match="has not made"):
                await stand.run(backend, job)
            await backend.erase(job.name, up_to=NEWEST)
        assert (await stranger.show())["Name"] == job.name
    finally:
        await stranger.delete()


class AnyValue(Engine):
    """Takes a label without a value for one of any value, as podman does."""

    async def read(self, path: str, **params: str) -> bytes:
        if "filters" in params:
            wanted = json.loads(params["filters"])
            params["filters"] = json.dumps({key: [one.removesuffix("=") for one in wanted[key]] for key in wanted})
        return await super().read(path, **params)


async def test_no_workspace_gets_the_volume_of_another_one_of_its_user(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job("alice", "gpu"))
    engine = AnyValue(ENGINE_URL, stand.hub)
    await engine.open()
    try:
        default = stand.record()
        volumes = Volumes(engine, stand.hub, keep=AT_ONCE)
        made = await volumes.ensure(default.workspace, base_url=default.base_url, before_making=nobody_minds)
        assert made == default.name
    finally:
        await engine.aclose()


async def nobody_minds() -> None:
    """Objects to nothing."""


async def test_a_volume_that_vanishes_before_its_container_is_made_is_made_anew_as_what_it_is(stand: Stand) -> None:
    async with stand.backend() as backend:
        job = stand.job()
        await stand.run(backend, job)
        volume = await (await stand.docker.volumes.get(job.name)).show()
        made = (await stand.inspect(job.name))["HostConfig"]["Mounts"]
        await delete(backend, job.record)
        assert await stand.names("volumes") == set()
        body: dict[str, Any] = {"Image": IMAGE, "HostConfig": {"Mounts": made}}
        container = await stand.docker.containers.create(body, name=f"{stand.hub}-late")
        try:
            again = await (await stand.docker.volumes.get(job.name)).show()
            assert again["Labels"] == volume["Labels"]
        finally:
            await container.delete(force=True, v=True)


async def test_nothing_is_removed_while_the_engine_is_away(stand: Stand) -> None:
    async with forwarder("/var/run/docker.sock") as way, stand.backend(engine_url=way.url) as backend:
        job = stand.job()
        await stand.run(backend, job)
        await backend.stop(job.name, grace=AT_ONCE, up_to=NEWEST)
        await way.cut()
        with pytest.raises(Temporary):
            await backend.erase(job.name, up_to=NEWEST)
        await way.mend()
        assert await stand.names("volumes") == {job.name}
        assert [found.record.name for found in await backend.inventory()] == [job.name]
