"""Images are really pulled, by a real engine, from a registry that misbehaves when it is told to."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mlhub_shared.contracts.workspace import Reason
from mlhub_spawner_worker.backends.base import BackendError
from mlhub_spawner_worker.backends.docker.credentials import registry_of
from mlhub_spawner_worker.backends.docker.images import Progress, refusal
from tests.spawner_worker.docker.conftest import Stand
from tests.support.docker_engine import IMAGE, profile
from tests.support.registry import Registry
from tests.support.waiting import until


@pytest.fixture(autouse=True)
async def no_images_left(stand: Stand, images: Registry) -> AsyncIterator[None]:
    yield
    for image in await stand.docker.images.list():
        for tag in image["RepoTags"] or []:
            if tag.startswith(images.address):
                await stand.docker.images.delete(tag, force=True)


async def test_an_image_is_fetched_once_for_all_who_wait_and_each_is_told_how_far_it_is(
    stand: Stand, images: Registry
) -> None:
    images.open.clear()
    name = images.push(size=1_000_000)
    async with stand.backend(profiles=(profile(image=name),), pull="missing") as backend:
        jobs = [stand.job(user) for user in ("alice", "bob", "carol")]
        said: dict[str, list[str]] = {job.name: [] for job in jobs}

        async def prepare(index: int) -> None:
            async def report(percent: int, message: str) -> None:
                said[jobs[index].name].append(message)

            await backend.prepare(jobs[index], report)

        def is_told_to_all() -> bool:
            return all(any("0 of 2 layers" in one and " MB" in one for one in words) for words in said.values())

        async with asyncio.TaskGroup() as waiting:
            for index in range(3):
                waiting.create_task(prepare(index))
            await until(is_told_to_all)
            images.open.set()
        assert images.layers_sent == 1
        other = images.push("other")
        await backend.prepare(stand.job("dave", image=other), stand.report)
        # The engine fetches a layer once even for many pulls, but asks for the manifest at each.
        assert images.asked["server:latest"] == images.asked["other:latest"]
        started = await backend.start(jobs[0])
        assert started.image_id == (await stand.docker.images.inspect(name))["Id"]


async def test_an_image_that_is_here_is_not_asked_for_again_unless_that_is_wanted(
    stand: Stand, images: Registry
) -> None:
    name = images.push()
    async with stand.backend(profiles=(profile(image=name),), pull="missing") as backend:
        old = await stand.run(backend, stand.job())
        asked = images.asked["server:latest"]
        images.push()
        await stand.run(backend, stand.job("bob"))
        assert images.asked["server:latest"] == asked
        renewed = await stand.run(backend, stand.job("carol", update=True))
        assert renewed.image_id != old.image_id
    async with stand.backend(profiles=(profile(image=name),), pull="always") as backend:
        asked = images.asked["server:latest"]
        await backend.prepare(stand.job("dave"), stand.report)
        assert images.asked["server:latest"] > asked


async def test_the_image_that_is_here_is_used_when_its_registry_is_away_and_that_is_said(
    stand: Stand, images: Registry
) -> None:
    name = images.push()
    async with stand.backend(profiles=(profile(image=name),), pull="missing") as backend:
        await backend.prepare(stand.job(), stand.report)
        images.refusal = 403
        stand.said.clear()
        await stand.run(backend, stand.job(update=True))
        assert any("can't be renewed" in message for _, message in stand.said)


@pytest.mark.parametrize(
    ("status", "words"), [(401, "does not let this node"), (403, "does not let this node"), (None, "There is no image")]
)
async def test_what_can_not_be_fetched_says_why(stand: Stand, images: Registry, status: int | None, words: str) -> None:
    images.refusal = status
    wanted = f"{images.address}/nosuch:1"
    async with stand.backend(profiles=(profile(image=wanted),), pull="missing") as backend:
        with pytest.raises(BackendError, match=words) as failure:
            await backend.prepare(stand.job(), stand.report)
        assert failure.value.reason is Reason.IMAGE
        assert wanted in str(failure.value)


async def test_a_registry_is_told_who_asks(stand: Stand, images: Registry, tmp_path: Path) -> None:
    name, images.login = images.push(), "node:canary-password"
    logins = tmp_path / "config.json"
    known = base64.b64encode(images.login.encode()).decode()
    logins.write_text(json.dumps({"auths": {images.address: {"auth": known}}}))
    async with stand.backend(profiles=(profile(image=name),), pull="missing") as backend:
        with pytest.raises(BackendError, match="does not let this node"):
            await backend.prepare(stand.job(), stand.report)
    async with stand.backend(profiles=(profile(image=name),), pull="missing", registry_logins=logins) as backend:
        await stand.run(backend, stand.job())
        logins.write_text("no JSON")
        with pytest.raises(BackendError, match="file of logins"):
            await backend.prepare(stand.job("bob", image=f"{images.address}/other:1"), stand.report)


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("python", "https://index.docker.io/v1/"),
        ("jupyter/scipy-notebook:1", "https://index.docker.io/v1/"),
        ("ghcr.io/x/y@sha256:1", "ghcr.io"),
        ("localhost/x", "localhost"),
        ("host:5000/x", "host:5000"),
    ],
)
def test_a_login_is_looked_up_by_the_image_s_registry(image: str, registry: str) -> None:
    assert registry_of(image) == registry


async def test_a_registry_that_is_not_there_is_told_from_a_missing_image(stand: Stand) -> None:
    async with stand.backend(profiles=(profile(image="127.0.0.1:1/server:1"),), pull="missing") as backend:
        with pytest.raises(BackendError, match="does not answer") as failure:
            await backend.prepare(stand.job(), stand.report)
        assert failure.value.reason is Reason.IMAGE


async def test_nothing_is_fetched_where_that_is_forbidden(stand: Stand, images: Registry) -> None:
    name = images.push()
    async with stand.backend(profiles=(profile(image=name),), pull="never") as backend:
        with pytest.raises(BackendError, match="none is fetched here"):
            await backend.prepare(stand.job(), stand.report)
        assert not images.asked
        await backend.prepare(stand.job(image=IMAGE, update=True), stand.report)
        assert any("not fetched here" in message for _, message in stand.said)


async def test_a_pull_that_nobody_waits_for_any_more_is_given_up(stand: Stand, images: Registry) -> None:
    images.pause = 1
    name = images.push(size=5_000_000)
    async with stand.backend(profiles=(profile(image=name),), pull="missing") as backend:
        waiting = asyncio.ensure_future(backend.prepare(stand.job(), stand.report))
        await until(lambda: images.layers_sent > 0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        images.pause = 0
        await backend.prepare(stand.job(), stand.report)
        assert images.layers_sent >= 2


def words() -> Iterator[dict[str, object]]:
    yield {"status": "Pulling from library/x", "id": "latest"}
    yield {"status": "Pulling fs layer", "id": "a"}
    yield {"status": "Already exists", "id": "b"}
    yield {"status": "Downloading", "id": "a", "progressDetail": {"current": 1_000_000, "total": 4_000_000}}


def test_progress_counts_layers_and_bytes() -> None:
    progress = Progress("x")
    for word in words():
        progress.note(word)
    assert str(progress) == "Fetching x: 1 of 2 layers, 1 of 4 MB"
    before = progress.percent
    progress.note({"status": "Download complete", "id": "a"})
    progress.note({"status": "Pull complete", "id": "a"})
    assert str(progress) == "Fetching x: 2 of 2 layers, 4 of 4 MB"
    assert before < progress.percent <= 95


def test_a_full_disk_is_not_the_image_s_fault() -> None:
    error = refusal("x", "write /var/lib/docker/tmp/GetImageBlob1: no space left on device")
    assert "disk of this node is full" in str(error)
    assert error.reason is Reason.BACKEND
