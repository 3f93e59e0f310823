"""The worker's service on a real nats-server, over a backend that does as it is told."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mlhub_shared.bus import Bus, Delivery
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import Phase, Reason, WorkspaceSecrets, WorkspaceSpec
from tests.support.makers import delete, spawn, stop, workspace
from tests.support.nats_server import NatsServer
from tests.support.scripted_backend import ScriptedBackend
from tests.support.waiting import until_async
from tests.support.workers import People, never, working

ALICE = workspace().name


def kinds(events: list[Event]) -> list[EventKind]:
    return [event.kind for event in events]


async def test_a_spawn_becomes_ready_and_a_stop_ends_it(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        lifetime = timedelta(hours=1)
        await people.send(spawn(generation=10, spec=WorkspaceSpec(lifetime=lifetime)))
        ready = await people.reaches(ALICE, Phase.READY)
        assert ready.ready_at is not None
        assert ready.expires_at == ready.ready_at + lifetime
        assert (ready.node, ready.progress, ready.message) == ("n1", 100, "")
        await people.send(stop(generation=20), node="n1")
        stopped = await people.reaches(ALICE, Phase.STOPPED)
        assert (stopped.reason, stopped.endpoint, stopped.expires_at) == (Reason.ASKED, None, None)
        assert scripted.running() == set()
    events = await people.history(ALICE)
    assert kinds(events) == [
        EventKind.WORKSPACE_PREPARING,
        EventKind.WORKSPACE_PROGRESSED,
        EventKind.WORKSPACE_PROGRESSED,
        EventKind.WORKSPACE_STARTING,
        EventKind.WORKSPACE_READY,
        EventKind.WORKSPACE_STOPPING,
        EventKind.WORKSPACE_STOPPED,
    ]
    percents = [event.progress for event in events if event.progress is not None]
    assert percents == sorted(percents)
    assert len({event.id for event in events}) == len(events)


async def test_every_command_delivered_twice_does_its_work_once(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted) as worker:
        for command, phase in ((spawn(generation=10), Phase.READY), (stop(generation=20), Phase.STOPPED)):
            await people.send(command)
            await people.reaches(ALICE, phase)
            before = await people.record(ALICE)
            for attempt in (1, 2):
                await worker.workspaces.handle(command, Delivery("s", 1, attempt))
            assert await people.record(ALICE) == before
        gone = delete(generation=30)
        await people.send(gone)
        await people.vanishes(ALICE)
        await worker.workspaces.handle(gone, Delivery("s", 1, 2))
        await worker.workspaces.handle(spawn(generation=10), Delivery("s", 1, 2))
        assert await people.record(ALICE) is None, "an old spawn must not bring back what was deleted"
    events = kinds(await people.history(ALICE))
    for kind in (EventKind.WORKSPACE_READY, EventKind.WORKSPACE_STOPPED, EventKind.WORKSPACE_DELETED):
        assert events.count(kind) == 1
    assert scripted.calls["start", ALICE] == 1


async def test_a_stop_cancels_a_spawn_at_once(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(spawn(generation=10, spec=WorkspaceSpec(env={"FAKE_SLOW_PREPARE": "1"})))
        await people.reaches(ALICE, Phase.PREPARING)
        await people.send(stop(generation=20))
        await people.reaches(ALICE, Phase.STOPPED, within=10)
        assert scripted.calls["start", ALICE] == 0


async def test_a_stop_cancels_a_start_that_does_not_answer(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted, probe=never):
        await people.send(spawn(generation=10))
        await people.reaches(ALICE, Phase.STARTING)
        await people.send(stop(generation=20))
        await people.reaches(ALICE, Phase.STOPPED, within=10)
        assert scripted.running() == set()


async def test_a_stop_meant_for_another_generation_is_dropped(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(spawn(generation=10))
        before = await people.reaches(ALICE, Phase.READY)
        await people.send(stop(generation=20, only_generation=9))
        await people.send(spawn("bob", generation=10))
        await people.reaches(workspace("bob").name, Phase.READY)
        assert await people.record(ALICE) == before


async def test_a_newer_spawn_replaces_what_runs(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(spawn(generation=10))
        await people.reaches(ALICE, Phase.READY)
        await people.send(spawn(generation=20))
        await people.reaches(ALICE, lambda r: r is not None and r.generation == 20 and r.phase is Phase.READY)
        assert scripted.calls["start", ALICE] == 2
        assert scripted.most_at_once == 1


@pytest.mark.parametrize(
    ("env", "settings", "reason"),
    [
        ({"FAKE_SLOW_PREPARE": "1"}, {"prepare_timeout": 0.3}, Reason.TIMEOUT),
        ({"FAKE_FAIL_START": "backend"}, {}, Reason.BACKEND),
        ({"FAKE_FAIL_START": "image"}, {}, Reason.IMAGE),
        ({"FAKE_EXIT": "3"}, {"probe": never}, Reason.EXITED),
        ({}, {"probe": never, "start_timeout": 0.3}, Reason.TIMEOUT),
    ],
    ids=["slow to prepare", "fails to start", "no image", "dies before it answers", "never answers"],
)
async def test_a_spawn_that_fails_says_why_and_leaves_nothing_running(
    nats_server: NatsServer,
    tmp_path: Path,
    scripted: ScriptedBackend,
    people: People,
    env: dict[str, str],
    settings: dict[str, Any],
    reason: Reason,
) -> None:
    async with working(nats_server, tmp_path / "w", scripted, **settings):
        await people.send(spawn(generation=10, spec=WorkspaceSpec(env=env)))
        failed = await people.reaches(ALICE, Phase.FAILED)
        assert failed.reason is reason
        assert failed.message
        assert scripted.running() == set()
        # What JupyterHub does next must not hide the reason.
        await people.send(stop(generation=20))
        await people.reaches(ALICE, lambda r: r is not None and r.generation == 20)
        assert (await people.reaches(ALICE, Phase.FAILED)).reason is reason
        await people.send(spawn(generation=30))
        if settings.get("probe") is not never:
            await people.reaches(ALICE, Phase.READY)


async def test_a_stop_that_hangs_is_tried_again(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted, stop_timeout=0.3):
        await people.send(spawn(generation=10, spec=WorkspaceSpec(env={"FAKE_STOP_HANGS": "1"})))
        await people.reaches(ALICE, Phase.READY)
        await people.send(stop(generation=20))
        await people.reaches(ALICE, Phase.STOPPED)
        assert scripted.calls["stop", ALICE] == 2


async def test_a_start_that_fails_for_now_is_tried_again(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(spawn(generation=10, spec=WorkspaceSpec(env={"FAKE_BUSY": "2"})))
        await people.reaches(ALICE, Phase.READY)
        assert scripted.calls["start", ALICE] == 3
    told = [event.message for event in await people.history(ALICE)]
    assert told.count("the script says not now; it is tried again") == 1


async def test_who_ends_before_the_first_answer_has_failed_whatever_the_exit_code(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted, probe=never):
        await people.send(spawn(generation=10))
        await people.reaches(ALICE, Phase.STARTING)
        scripted.die(ALICE, 0)
        ended = await people.reaches(ALICE, Phase.FAILED)
    assert (ended.reason, ended.message) == (Reason.EXITED, "It ended with exit code 0")


@pytest.mark.parametrize(("code", "phase"), [(0, Phase.STOPPED), (3, Phase.FAILED), (-9, Phase.FAILED)])
async def test_a_death_is_told_at_once_and_stays(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People, code: int, phase: Phase
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(spawn(generation=10))
        await people.reaches(ALICE, Phase.READY)
        scripted.die(ALICE, code)
        ended = await people.reaches(ALICE, phase, within=10)
        assert ended.reason is Reason.EXITED
        assert ended.log_tail == ("" if code == 0 else "the last line\n")
    async with working(nats_server, tmp_path / "w", scripted):
        assert (await people.reaches(ALICE, phase)).generation == 10
        assert scripted.calls["start", ALICE] == 1


async def test_a_spawn_without_its_secrets_fails_with_a_sentence(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, bus: Bus, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        await bus.secrets.put(ALICE, WorkspaceSecrets(generation=9))
        await bus.send(spawn(generation=10), pool="default")
        failed = await people.reaches(ALICE, Phase.FAILED)
        assert failed.reason is Reason.SECRETS_LOST
        assert "start it again" in failed.message


async def test_what_the_policy_forbids_fails_as_invalid(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted, max_cpu=2):
        await people.send(spawn(generation=10, spec=WorkspaceSpec(cpu_limit=3)))
        failed = await people.reaches(ALICE, Phase.FAILED)
        assert failed.reason is Reason.INVALID
        assert "at most 2 cores" in failed.message
    assert EventKind.WORKSPACE_FAILED in kinds(await people.history(ALICE))


async def test_malformed_messages_stop_nothing(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, bus: Bus, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        for index, data in enumerate((b"", b"\xff\x00", b"[]", b'{"kind":"spawn"}', b'{"kind":"burn"}')):
            await bus.connection.publish(bus.subjects.command("default", f"ws-x{index}"), data)
        stranger = spawn(generation=5).model_copy(update={"workspace": WorkspaceId(hub="other", user="eve")})
        await bus.send(stranger, pool="default")
        await people.send(spawn(generation=10))
        await people.reaches(ALICE, Phase.READY)
        await until_async(lambda: _is(bus, bus.subjects.dead, 6))
        assert await people.record(stranger.workspace.name) is None


async def _is(bus: Bus, stream: str, messages: int) -> bool:
    info = await bus.connection.js.stream_info(stream)
    return info.state.messages == messages


async def test_a_command_nobody_can_handle_is_told_on_the_record(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted) as worker:
        await worker.workspaces.give_up(spawn(generation=10), Delivery("s", 7, 8), "it is cursed")
        failed = await people.reaches(ALICE, Phase.FAILED)
        assert "it is cursed" in failed.message
    assert kinds(await people.history(ALICE)) == [EventKind.MESSAGE_DEAD, EventKind.WORKSPACE_FAILED]


async def test_deleting_leaves_nothing(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, bus: Bus, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(spawn(generation=10))
        await people.reaches(ALICE, Phase.READY)
        await people.send(delete(generation=20), node="n1")
        await people.vanishes(ALICE)
        assert scripted.scripts == {}
        assert await bus.secrets.get(ALICE) is None
        assert await bus.last_command("default", ALICE, "n1") is None
    assert kinds(await people.history(ALICE))[-1] is EventKind.WORKSPACE_DELETED


async def test_a_spawn_during_a_deletion_starts_afresh(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, bus: Bus, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted, stop_timeout=0.5):
        await people.send(spawn(generation=10, spec=WorkspaceSpec(env={"FAKE_STOP_HANGS": "1"})))
        await people.reaches(ALICE, Phase.READY)
        await people.send(delete(generation=20))
        await people.reaches(ALICE, Phase.STOPPING)
        await people.send(spawn(generation=30))
        ready = await people.reaches(ALICE, Phase.READY)
        assert ready.generation == 30
        assert scripted.calls["erase", ALICE] == 1
        assert await bus.secrets.get(ALICE) is not None
    events = kinds(await people.history(ALICE))
    assert events.index(EventKind.WORKSPACE_DELETED) < len(events) - 1 - events[::-1].index(EventKind.WORKSPACE_READY)


async def test_deleting_what_nobody_knows_is_told_too(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, bus: Bus, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(delete(generation=20))

        async def forgotten() -> bool:
            return await bus.last_command("default", ALICE) is None

        await until_async(forgotten)
    assert kinds(await people.history(ALICE)) == [EventKind.WORKSPACE_DELETED]


async def test_another_nodes_command_is_handed_on(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, bus: Bus, people: People
) -> None:
    elsewhere = ScriptedBackend()
    async with working(nats_server, tmp_path / "w1", scripted, capacity=1):
        await people.send(spawn(generation=10))
        await people.reaches(ALICE, Phase.READY)
        async with working(nats_server, tmp_path / "w2", elsewhere, node="n2") as other:
            # The pool's consumer may have given it to either; this is how it goes when it was the wrong one.
            command = stop(generation=20)
            await other.workspaces.handle(command, Delivery("s", 1, 1))
            handed = await bus.last_command("default", ALICE, "n1")
            assert handed is not None
            assert handed[0] == command
            await people.reaches(ALICE, Phase.STOPPED)
            assert elsewhere.calls["stop", ALICE] == 0
            await people.send(spawn(generation=30))
            again = await people.reaches(ALICE, Phase.READY)
            assert again.node == "n1", "its data are there"
