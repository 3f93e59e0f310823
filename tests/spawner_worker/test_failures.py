"""What a workspace's owner is told when it does not come up, or goes down."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.workspace import Phase, Reason, WorkspaceRecord, WorkspaceSpec
from mlhub_spawner_worker.probe import Probe
from tests.support.makers import spawn, workspace
from tests.support.nats_server import NatsServer
from tests.support.scripted_backend import ScriptedBackend
from tests.support.waiting import until
from tests.support.workers import People, always, never, working

ALICE, BOB = workspace().name, workspace("bob").name


@pytest.mark.parametrize(("limit", "words"), [(2**29, "more than its 512 MiB of memory"), (None, "memory ran out")])
async def test_who_used_too_much_memory_is_told_so(
    nats_server: NatsServer,
    tmp_path: Path,
    scripted: ScriptedBackend,
    people: People,
    limit: int | None,
    words: str,
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(spawn(generation=10, spec=WorkspaceSpec(mem_limit=limit)))
        await people.reaches(ALICE, Phase.READY)
        scripted.die(ALICE, 0, Reason.OUT_OF_MEMORY)
        failed = await people.reaches(ALICE, Phase.FAILED)
        assert failed.reason is Reason.OUT_OF_MEMORY
        assert words in failed.message
        assert failed.log_tail == "the last line\n"


@pytest.mark.parametrize(("probe", "phase"), [(always, Phase.READY), (never, Phase.STARTING)])
async def test_a_death_is_told_though_what_it_left_can_not_be_cleared_away_and_takes_room_until_it_is(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People, probe: Probe, phase: Phase
) -> None:
    async with working(nats_server, tmp_path / "w", scripted, probe=probe, capacity=1):
        await people.send(spawn(generation=10))
        await people.reaches(ALICE, phase)
        await people.send(spawn("bob", generation=10))
        await people.reaches(BOB, Phase.QUEUED)
        scripted.stuck.add(ALICE)
        scripted.die(ALICE, 3)
        told = await people.reaches(ALICE, Phase.STOPPING, within=30)
        assert (told.reason, told.message) == (Reason.EXITED, "It ended with exit code 3")
        assert told.endpoint is None
        await until(lambda: scripted.calls["stop", ALICE] > 2)
        assert (await people.reaches(BOB, Phase.QUEUED)).node is None
        scripted.stuck.clear()
        failed = await people.reaches(ALICE, Phase.FAILED)
        assert (failed.reason, failed.message, failed.log_tail) == (told.reason, told.message, "the last line\n")
        await people.reaches(BOB, phase)


async def test_what_died_with_its_host_and_can_not_be_cleared_away_is_left_to_its_next_start(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(spawn(generation=10))
        await people.reaches(ALICE, Phase.READY)
        scripted.stuck.add(ALICE)
        scripted.restart_host()
        await until(lambda: scripted.calls["start", ALICE] == 2)
        await people.reaches(ALICE, Phase.READY)


async def test_who_never_answers_is_told_where_and_shown_the_end_of_the_log(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    scripted.images_allowed = True
    profiles = tmp_path / "profiles.yaml"
    profiles.write_text("profiles: [{name: odd, image: odd, port: 9999, start_timeout: 0.4}]\n")
    async with working(nats_server, tmp_path / "w", scripted, probe=never, profiles_file=profiles, start_timeout=60):
        await people.send(spawn(generation=10, spec=WorkspaceSpec(profile="odd", image="odd")))
        starting = await people.reaches(ALICE, Phase.STARTING)
        assert starting.image_id == "id-of-odd"
        failed = await people.reaches(ALICE, Phase.FAILED, within=10)
        assert failed.reason is Reason.TIMEOUT
        assert re.match(r"Nothing answered on port 9999 within 0\.4 s", failed.message)
        assert failed.log_tail == "the last line\n"


async def test_what_the_backend_says_of_a_death_is_told_in_place_of_the_general_sentence(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        for user, code, reason, words in (
            ("ann", None, Reason.EVICTED, "The node was low on memory."),
            ("bob", 137, Reason.OUT_OF_MEMORY, "It needed more than its 1 GiB on node a."),
            ("cid", 0, Reason.EXITED, "It was ended with its node."),
        ):
            name = workspace(user).name
            await people.send(spawn(user, generation=10))
            await people.reaches(name, Phase.READY)
            scripted.die(name, code, reason, words)
            down = await people.reaches(name, Phase.STOPPED if code == 0 else Phase.FAILED)
            assert (down.reason, down.message) == (reason, words)


async def test_what_ails_a_workspace_that_runs_stands_on_its_record_until_it_is_over(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    def saying(words: str) -> Callable[[WorkspaceRecord | None], bool]:
        return lambda record: record is not None and (record.phase, record.message) == (Phase.READY, words)

    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(spawn(generation=10))
        before = await people.reaches(ALICE, Phase.READY)
        told = len(await people.history(ALICE))
        scripted.troubles[ALICE] = "Node a does not answer"
        await people.reaches(ALICE, saying("Node a does not answer"))
        scripted.troubles[ALICE] = "Node a is short of disk"
        await people.reaches(ALICE, saying("Node a is short of disk"))
    del scripted.troubles[ALICE]
    async with working(nats_server, tmp_path / "w", scripted):
        assert await people.reaches(ALICE, saying("")) == before
        kinds = [event.kind for event in await people.history(ALICE)][told:]
        assert kinds == [EventKind.WORKSPACE_ADOPTED], "it is no change of phase"
        scripted.troubles[ALICE] = "Node a does not answer"
        await people.reaches(ALICE, saying("Node a does not answer"))
        scripted.die(ALICE, 1)
        assert "exit code 1" in (await people.reaches(ALICE, Phase.FAILED)).message


async def test_who_waits_too_long_for_what_his_start_needs_is_told_what_that_was(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted, prepare_timeout=0.3):
        await people.send(spawn(generation=10, spec=WorkspaceSpec(env={"FAKE_SLOW_PREPARE": "1"})))
        failed = await people.reaches(ALICE, Phase.FAILED)
        assert failed.reason is Reason.TIMEOUT
        assert failed.message == "Preparing took longer than 0.3 s; last: Preparing by the book"
