"""A whole worker over a real engine: what its records say of containers that come up, die, or never do."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiodocker
import pytest

from mlhub_shared.contracts.workspace import Phase, Reason, WorkspaceSpec
from tests.support.docker_engine import IMAGE, deployment, docker_backend
from tests.support.makers import delete, spawn, stop, workspace
from tests.support.nats_server import NatsServer
from tests.support.workers import People, direct, never, working

HUB = "test"
"""Of the bus that the tests have."""

MIB = 1024 * 1024
ALICE, BOB, CAROL = (workspace(user).name for user in ("alice", "bob", "carol"))


@pytest.fixture
async def docker() -> AsyncIterator[aiodocker.Docker]:
    async with deployment(HUB) as (client, _):
        yield client


def spec(image: str = IMAGE, **fields: object) -> WorkspaceSpec:
    return WorkspaceSpec.model_validate({"profile": "default", "image": image} | fields)


async def test_a_container_s_life_is_told_by_its_record(
    nats_server: NatsServer, people: People, docker: aiodocker.Docker, tmp_path: Path
) -> None:
    async with working(nats_server, tmp_path, docker_backend(tmp_path, HUB), probe=direct, default_image=IMAGE):
        await people.send(spawn(spec=spec(cpu_limit=0.5, mem_limit=64 * MIB)))
        record = await people.reaches(ALICE, Phase.READY)
        assert record.image_id == (await docker.images.inspect(IMAGE))["Id"]
        host = (await docker.containers.container(ALICE).show())["HostConfig"]
        assert (host["NanoCpus"], host["Memory"]) == (500_000_000, 64 * MIB)
        await docker.containers.container(ALICE).kill(signal="SIGKILL")
        killed = time.monotonic()
        record = await people.reaches(ALICE, Phase.FAILED)
        assert time.monotonic() - killed < 1
        assert (record.reason, "signal 9" in record.message) == (Reason.EXITED, True)
        await people.send(spawn(generation=2, spec=spec()))
        await people.reaches(ALICE, Phase.READY)
        await people.send(stop(generation=3))
        await people.reaches(ALICE, Phase.STOPPED)
        await people.send(delete(generation=4))
        await people.vanishes(ALICE)
        label = f'{{"label": ["mlhub.origin={HUB}"]}}'
        assert await docker.containers.list(all=True, filters=label) == []
        assert (await docker.volumes.list(filters={"label": [f"mlhub.origin={HUB}"]}))["Volumes"] == []


async def test_each_failure_has_its_own_reason(
    nats_server: NatsServer, people: People, docker: aiodocker.Docker, tmp_path: Path
) -> None:
    backend = docker_backend(tmp_path, HUB, pull="missing")
    settings = {"default_image": IMAGE, "images": "*", "start_timeout": 12}
    async with working(nats_server, tmp_path, backend, probe=never, **settings):
        await people.send(spawn(spec=spec("127.0.0.1:1/nosuch:1")))
        await people.send(spawn("bob", spec=spec(env={"FAKE_EXIT": "4"})))
        await people.send(spawn("carol", spec=spec(env={"FAKE_MUTE": "1"})))
        found = await asyncio.gather(*(people.reaches(name, Phase.FAILED) for name in (ALICE, BOB, CAROL)))
    image, exited, mute = found
    assert image.reason is Reason.IMAGE
    assert "127.0.0.1:1/nosuch:1" in image.message
    assert exited.reason is Reason.EXITED
    assert "exit code 4" in exited.message
    assert "the server gives up" in exited.log_tail
    assert mute.reason is Reason.TIMEOUT
    assert "the server starts" in mute.log_tail


async def test_memory_that_runs_out_is_told(
    nats_server: NatsServer, people: People, docker: aiodocker.Docker, tmp_path: Path
) -> None:
    async with working(nats_server, tmp_path, docker_backend(tmp_path, HUB), probe=never, default_image=IMAGE):
        await people.send(spawn(spec=spec(env={"FAKE_EAT": "64"}, mem_limit=16 * MIB)))
        record = await people.reaches(ALICE, Phase.FAILED)
        assert record.reason is Reason.OUT_OF_MEMORY
        assert "16 MiB" in record.message
