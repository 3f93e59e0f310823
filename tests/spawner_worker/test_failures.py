"""What a workspace's owner is told when it does not come up, or goes down."""

import re
from pathlib import Path

import pytest

from mlhub_shared.contracts.workspace import Phase, Reason, WorkspaceSpec
from tests.support.makers import spawn, workspace
from tests.support.nats_server import NatsServer
from tests.support.scripted_backend import ScriptedBackend
from tests.support.workers import People, never, working

ALICE = workspace().name


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
