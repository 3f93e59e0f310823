"""An API server that has too much to do says when it wants to be asked again."""

import time
from pathlib import Path

from mlhub_shared.contracts.workspace import Phase
from tests.spawner_worker.kubernetes.conftest import Stand
from tests.support.makers import spawn, workspace
from tests.support.nats_server import NatsServer
from tests.support.waiting import until
from tests.support.workers import People, working

SECONDS = 2
TIMES = 2


def timed(stand: Stand, verb: str, resource: str) -> list[float]:
    """When requests of one kind come, while they are refused."""
    asked: list[float] = []

    def matches(its_verb: str, its_resource: str) -> bool:
        is_one = (its_verb, its_resource) == (verb, resource)
        if is_one:
            asked.append(time.monotonic())
        return is_one

    stand.cluster.faults.busy(SECONDS, times=TIMES, matches=matches)
    return asked


def waited(asked: list[float]) -> bool:
    """Whether the second came as late as was asked for."""
    first, second = asked
    return second - first >= SECONDS


async def test_a_start_waits_for_as_long_as_it_is_told(
    stand: Stand, nats_server: NatsServer, tmp_path: Path, people: People
) -> None:
    async with working(nats_server, tmp_path, stand.made(), node="kubernetes"):
        asked = timed(stand, "create", "pods")
        await people.send(spawn("alice", generation=10))
        await people.reaches(workspace("alice").name, Phase.READY)
    assert waited(asked)


async def test_a_list_does_too(stand: Stand) -> None:
    asked = timed(stand, "list", "pods")
    async with stand.backend() as backend:
        await until(lambda: not backend.out_of_reach)
    assert waited(asked)
