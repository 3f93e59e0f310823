"""How a workspace's end is seen: at once, with its reason, and over an engine or a worker that was away."""

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mlhub_shared.contracts.workspace import Reason
from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends.docker import labels
from mlhub_spawner_worker.backends.docker.containers import Containers, Shown
from mlhub_spawner_worker.backends.docker.engine import Engine
from tests.spawner_worker.docker.conftest import Stand
from tests.support.docker_engine import ENGINE_URL, IMAGE
from tests.support.forwarder import forwarder
from tests.support.makers import NEWEST
from tests.support.waiting import until

AT_ONCE = timedelta(0)
MIB = 1024 * 1024
SOON = 30


async def test_a_kill_from_outside_is_known_within_a_second(stand: Stand) -> None:
    async with stand.backend() as backend:
        job = stand.job()
        await stand.run(backend, job)
        await asyncio.wait_for(backend.engine.events.connected.wait(), SOON)
        waiting = asyncio.ensure_future(backend.wait(job.name))
        await stand.docker.containers.container(job.name).kill(signal="SIGKILL")
        killed = time.monotonic()
        end = await asyncio.wait_for(waiting, SOON)
        assert time.monotonic() - killed < 1
        assert (end.code, end.reason) == (-9, Reason.EXITED)
        assert backend.session(job.name) is None


async def test_what_ends_at_its_start_leaves_its_last_words(stand: Stand) -> None:
    async with stand.backend() as backend:
        end = await asyncio.wait_for(stand.ends(backend, stand.job(env={"FAKE_EXIT": "7"})), SOON)
        assert end.code == 7
        assert "the server gives up" in end.log_tail
        loud = stand.job("bob", env={"FAKE_EXIT": "1", "FAKE_TALK": "3000"})
        end = await asyncio.wait_for(stand.ends(backend, loud), SOON)
        assert "line 2999" in end.log_tail
        assert len(end.log_tail) <= 4000


async def test_an_event_may_be_of_any_length(stand: Stand) -> None:
    async with stand.backend() as backend:
        # Escaped twice on its way: in the label, and in the event that carries all labels.
        job = stand.job(env={"BIG": '"' * 60_000})
        await stand.run(backend, job)
        await asyncio.wait_for(backend.engine.events.connected.wait(), SOON)
        waiting = asyncio.ensure_future(backend.wait(job.name))
        await stand.docker.containers.container(job.name).kill(signal="SIGKILL")
        assert (await asyncio.wait_for(waiting, SOON)).code == -9
        assert backend.engine.events.connected.is_set()


async def test_memory_that_runs_out_is_named(stand: Stand) -> None:
    async with stand.backend() as backend:
        job = stand.job(env={"FAKE_EAT": "64"}, mem_limit=16 * MIB)
        end = await asyncio.wait_for(stand.ends(backend, job), SOON)
        assert (end.code, end.reason) == (-9, Reason.OUT_OF_MEMORY)


async def test_a_container_that_somebody_removes_is_dead(stand: Stand) -> None:
    async with stand.backend() as backend:
        job = stand.job()
        await stand.run(backend, job)
        waiting = asyncio.ensure_future(backend.wait(job.name))
        await stand.docker.containers.container(job.name).delete(force=True)
        await asyncio.wait_for(waiting, SOON)
        assert await backend.stop(job.name, grace=AT_ONCE, up_to=NEWEST) == waiting.result().log_tail


async def test_a_death_while_a_running_container_is_taken_up_is_seen(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, dead = stand.job(), asyncio.Event()
    other = Stand(stand.docker, stand.hub, tmp_path / "other")
    async with stand.backend() as first, other.backend() as second:
        second.engine.events.on_event(lambda event: dead.set() if event.action == "die" else None)
        await asyncio.wait_for(second.engine.events.connected.wait(), SOON)
        find = Containers.find

        async def find_and_kill(containers: Containers, container: str) -> Shown | None:
            shown = await find(containers, container)
            if container == job.name and shown is not None and shown.runs:
                await stand.docker.containers.container(job.name).kill(signal="SIGKILL")
                await asyncio.wait_for(dead.wait(), SOON)
            return shown

        await stand.run(first, job)
        monkeypatch.setattr(Containers, "find", find_and_kill)
        await second.start(job)
        assert (await asyncio.wait_for(second.wait(job.name), SOON)).code == -9


async def test_grace_is_given_and_ends(stand: Stand) -> None:
    async with stand.backend() as backend:
        polite, stubborn = stand.job(), stand.job("bob", env={"FAKE_STUBBORN": "1"})
        for job in (polite, stubborn):
            await stand.run(backend, job)
        await backend.stop(polite.name, grace=timedelta(seconds=30), up_to=NEWEST)
        assert (await backend.wait(polite.name)).code == -15
        await backend.stop(stubborn.name, grace=timedelta(seconds=1), up_to=NEWEST)
        assert (await backend.wait(stubborn.name)).code == -9
        assert await stand.names("containers") == set()


async def test_what_died_while_the_engine_could_not_be_heard_is_found_when_it_is_back(stand: Stand) -> None:
    async with forwarder("/var/run/docker.sock") as way, stand.backend(engine_url=way.url) as backend:
        dies, lives = stand.job(), stand.job("bob")
        for job in (dies, lives):
            await stand.run(backend, job)
        waiting = {job.name: asyncio.ensure_future(backend.wait(job.name)) for job in (dies, lives)}
        await way.cut()
        await until(lambda: not backend.engine.events.connected.is_set())
        await stand.docker.containers.container(dies.name).kill(signal="SIGKILL")
        with pytest.raises(Temporary):
            await backend.stop(lives.name, grace=AT_ONCE, up_to=NEWEST)
        assert not any(task.done() for task in waiting.values())
        await way.mend()
        assert (await asyncio.wait_for(waiting[dies.name], SOON)).code == -9
        assert not waiting[lives.name].done()
        waiting[lives.name].cancel()


async def test_what_died_with_its_engine_is_told_from_what_died_alone(stand: Stand) -> None:
    async with stand.backend() as backend:
        job = stand.job()
        started = await stand.run(backend, job)
        assert started.boot == backend.boot
        await age(stand, job.name)
    async with stand.backend() as backend:
        end = await asyncio.wait_for(backend.wait(job.name), SOON)
        # What the driver takes for a death with the engine: no code, and another boot.
        assert end.code is None
        (found,) = await backend.inventory()
        assert found.running is None


async def age(stand: Stand, name: str) -> None:
    """Put a dead container of an earlier boot of the engine in a workspace's place."""
    shown = await stand.inspect(name)
    carried = shown["Config"]["Labels"] | {labels.BOOT: "an earlier one"}
    await stand.docker.containers.container(name).delete(force=True)
    body: dict[str, Any] = {"Image": IMAGE, "Labels": carried, "Env": ["FAKE_EXIT=1"]}
    container = await stand.docker.containers.create(body, name=name)
    await container.start()
    await container.wait()


async def test_the_boot_of_an_engine_stays_while_it_runs(stand: Stand) -> None:
    engine = Engine(ENGINE_URL, stand.hub)
    await engine.open()
    try:
        first = engine.boot
        assert first.count("T") >= 1
        assert await engine.look_at_boot() == first
    finally:
        await engine.aclose()


async def test_an_engine_that_is_away_is_temporary(stand: Stand) -> None:
    async with forwarder("/var/run/docker.sock") as way, stand.backend(engine_url=way.url) as backend:
        job = stand.job()
        await way.cut()
        for work in (
            backend.prepare(job, stand.report),
            backend.start(job),
            backend.stop(job.name, grace=AT_ONCE, up_to=NEWEST),
            backend.erase(job.name, up_to=NEWEST),
            backend.inventory(),
            backend.resources(),
        ):
            with pytest.raises(Temporary):
                await work
        await way.mend()
        await stand.run(backend, job)


async def test_two_follow_events_of_their_own_hub_only(stand: Stand) -> None:
    engine = Engine(ENGINE_URL, stand.hub)
    await engine.open()
    heard: list[tuple[str, str]] = []
    engine.events.on_event(lambda event: heard.append((event.action, event.labels["name"])))
    engine.events.start()
    try:
        await asyncio.wait_for(engine.events.connected.wait(), SOON)
        for name, carried in (
            (f"{stand.hub}-a", {labels.ORIGIN: stand.hub}),
            (f"{stand.hub}-b", {labels.DEPLOYMENT: stand.hub, labels.SERVICE: "proxy"}),
            (f"{stand.hub}-c", {labels.ORIGIN: "another"}),
        ):
            body: dict[str, Any] = {"Image": IMAGE, "Labels": carried}
            container = await stand.docker.containers.create(body, name=name)
            await container.start()
            await container.delete(force=True)
        await until(lambda: len(heard) >= 6)
        assert {name for _, name in heard} == {f"{stand.hub}-a", f"{stand.hub}-b"}
        assert {action for action, _ in heard} == {"start", "die", "destroy"}
    finally:
        await engine.aclose()
