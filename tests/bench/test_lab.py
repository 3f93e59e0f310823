"""What a measure makes on the container engine, and that nothing is left of it."""

from dataclasses import replace
from pathlib import Path

import pytest
from aiodocker import Docker, DockerError

from tests.bench.bench import Bench, NotAvailableError
from tests.bench.engine.contender import Seat, take_turn
from tests.bench.engine.lab import RUN, Lab, lab
from tests.bench.engine.raw import RawEngineWithNetworks
from tests.bench.report import Report


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, runs=1, quick=True, report=Report({}), artefacts=tmp_path, chp=None)


async def _left(one: Lab) -> list[str]:
    containers, networks = await one.containers(RUN), await one.networks(RUN)
    return [container.id for container in containers] + [network.id for network in networks]


async def test_servers_come_up_on_networks_of_their_own_and_nothing_is_left(bench: Bench) -> None:
    try:
        async with lab(bench) as one:
            turn = await take_turn(
                RawEngineWithNetworks(one, width=2, settings={"CapDrop": ["ALL"]}),
                seats=lambda: [Seat("alice", "a"), Seat("bob", "b")],
            )
            assert len(turn.ready) == 2
            assert 0 < turn.median <= turn.last < 60
            assert len(await _left(one)) == 2  # what is attached to networks stays for the next turn
            await one.network("alice")
            await one.leg("forgotten", {"mlhub.origin": one.name})
    except NotAvailableError as error:
        pytest.skip(str(error))
    async with Docker(one.url) as docker:
        assert await _left(replace(one, docker=docker)) == []
        with pytest.raises(DockerError, match="No such image"):
            await docker.images.inspect(one.image)
