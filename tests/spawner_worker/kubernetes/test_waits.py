"""What a start waits for, told on the record for everybody who looks there."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord
from mlhub_spawner_worker import telling
from tests.spawner_worker.kubernetes.conftest import Stand
from tests.support.kube import Script
from tests.support.makers import spawn, workspace
from tests.support.nats_server import NatsServer
from tests.support.workers import People, working

ALICE = workspace("alice").name
GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def saying(text: str) -> Callable[[WorkspaceRecord | None], bool]:
    """A record of a start that waits, and says so."""
    return lambda record: record is not None and record.phase is Phase.PREPARING and text in record.message


async def revision(bus: Bus) -> int:
    """Of the record: of one workspace each write counts."""
    entry = await bus.workspaces.get(ALICE)
    assert entry is not None
    return entry.revision


async def test_what_is_missing_stands_on_the_record_at_the_price_of_one_write(
    stand: Stand, nats_server: NatsServer, tmp_path: Path, bus: Bus, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "STANDS", 0.5)
    monkeypatch.setattr(telling, "BETWEEN", 0.1)
    stand.cluster.quota(pods="0")
    stand.cluster.kubelet.script(ALICE, Script(unschedulable=GPU))
    async with working(nats_server, tmp_path, stand.made(), node="kubernetes"):
        await people.send(spawn("alice", generation=10))
        await people.reaches(ALICE, saying("The quota small of the namespace mlhub-workspaces is full: pods=1"))
        before = await revision(bus)
        await asyncio.sleep(3)
        assert await revision(bus) == before, "it is the same sentence, however often it is said"
        stand.cluster.quota()
        await people.reaches(ALICE, saying(GPU))
        assert await revision(bus) == before + 1
        stand.cluster.kubelet.release(ALICE)
        assert not (await people.reaches(ALICE, Phase.READY)).message


async def test_what_is_tried_again_and_again_stands_there_too(
    stand: Stand, nats_server: NatsServer, tmp_path: Path, bus: Bus, people: People
) -> None:
    async with working(nats_server, tmp_path, stand.made(), node="kubernetes"):
        stand.cluster.remove_namespace()
        await people.send(spawn("alice", generation=10))
        await people.reaches(ALICE, saying("does not exist: an administrator must make it; it is tried again"))
        before = await revision(bus)
        await asyncio.sleep(3)
        assert await revision(bus) == before
        stand.cluster.add_namespace(stand.cluster.namespace)
        await people.reaches(ALICE, Phase.READY)


async def test_sentences_that_come_and_go_cost_no_write_each() -> None:
    put: list[str] = []

    async def keep(sentence: str) -> None:
        put.append(sentence)

    standing = telling.Standing(keep)
    running = asyncio.ensure_future(standing.run())
    for percent in range(20):
        standing.say(f"{percent} %")
        await asyncio.sleep(telling.STANDS / 20)
    assert not put
    await asyncio.sleep(telling.STANDS + 0.5)
    assert put == ["19 %"]
    running.cancel()
