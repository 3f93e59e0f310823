"""What all of one user's workspaces may have together, enforced where nobody gets past it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.workspace import Phase, Reason, WorkspaceSpec
from tests.support.makers import spawn, stop, workspace
from tests.support.nats_server import NatsServer
from tests.support.scripted_backend import ScriptedBackend
from tests.support.waiting import until_async
from tests.support.workers import People, working


def name(server: str) -> str:
    return workspace("alice", server).name


@pytest.mark.parametrize(
    ("settings", "spec", "words"),
    [
        ({"user_max_workspaces": 2}, {}, "no more than 2 of your workspaces may run at a time"),
        ({"user_max_cpu": 4}, {"cpu_limit": 2}, "4 cores, and 0 are left"),
        ({"user_max_mem": "3G"}, {"mem_limit": 2**30}, "3 GiB of memory"),
    ],
    ids=["number", "cores", "memory"],
)
async def test_what_goes_beyond_is_refused_with_a_sentence_until_there_is_room_again(
    nats_server: NatsServer,
    tmp_path: Path,
    scripted: ScriptedBackend,
    people: People,
    settings: dict[str, Any],
    spec: dict[str, Any],
    words: str,
) -> None:
    asked = WorkspaceSpec(**spec)
    fitting = 3 if "user_max_mem" in settings else 2
    async with working(nats_server, tmp_path / "w", scripted, **settings):
        for number in range(fitting):
            await people.send(spawn("alice", f"s{number}", generation=10, spec=asked))
            await people.reaches(name(f"s{number}"), Phase.READY)
        await people.send(spawn("alice", "more", generation=11, spec=asked))
        refused = await people.reaches(name("more"), Phase.FAILED)
        assert refused.reason is Reason.INVALID
        assert words in refused.message
        await people.send(spawn("bob", generation=12, spec=asked))
        await people.reaches(workspace("bob").name, Phase.READY)
        await people.send(spawn("alice", "s0", generation=13, spec=asked))
        await people.reaches(name("s0"), lambda r: r is not None and r.generation == 13 and r.phase is Phase.READY)
        await people.send(stop("alice", "s1", generation=14))
        await people.reaches(name("s1"), Phase.STOPPED)
        await people.send(spawn("alice", "more", generation=15, spec=asked))
        await people.reaches(name("more"), Phase.READY)


async def test_those_in_line_count_too(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted, capacity=1, user_max_workspaces=2):
        for number, phase in enumerate((Phase.READY, Phase.QUEUED, Phase.FAILED)):
            await people.send(spawn("alice", f"s{number}", generation=10))
            await people.reaches(name(f"s{number}"), phase)


async def test_who_asks_for_all_at_once_gets_no_more(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted, user_max_workspaces=3):
        names = [name(f"s{number}") for number in range(8)]
        await asyncio.gather(*(people.send(spawn("alice", f"s{number}", generation=10)) for number in range(8)))
        phases: list[Phase | None] = []

        async def settled() -> bool:
            records = [await people.record(found) for found in names]
            phases[:] = [record.phase if record else None for record in records]
            return all(phase in {Phase.READY, Phase.FAILED} for phase in phases)

        await until_async(settled)
        assert phases.count(Phase.READY) == 3


async def test_the_workspaces_on_all_nodes_count(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, bus: Bus, people: People
) -> None:
    async with (
        working(nats_server, tmp_path / "w1", scripted, capacity=1, user_max_workspaces=2),
        working(nats_server, tmp_path / "w2", ScriptedBackend(), node="n2", capacity=1, user_max_workspaces=2),
    ):
        for server, phase in (("a", Phase.READY), ("b", Phase.READY), ("c", Phase.FAILED)):
            await people.send(spawn("alice", server, generation=10))
            await people.reaches(name(server), phase)
