"""Workers that share a node, of which some can't reach what they run workspaces on."""

import copy
from functools import partial
from pathlib import Path

import pytest

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.services import by_node
from mlhub_shared.contracts.workspace import Phase
from mlhub_spawner_worker import siblings
from tests.spawner_worker.test_siblings import name, owned_by
from tests.support.makers import spawn
from tests.support.nats_server import NatsServer
from tests.support.replicas import NODE, replicas
from tests.support.scripted_backend import ScriptedBackend
from tests.support.waiting import until, until_async
from tests.support.workers import People


async def test_one_that_is_out_of_reach_leaves_its_part_to_the_others_until_it_is_well(
    nats_server: NatsServer, tmp_path: Path, bus: Bus, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(siblings, "HOLD", 2.0)
    one = ScriptedBackend()
    one.cluster = "the-cluster"
    other = copy.copy(one)  # What runs is the same, and the way to it another.
    backends = iter([one, other])
    async with replicas(nats_server, tmp_path, lambda: next(backends), bus) as crew:
        await crew.start("r1", "r2")
        mine, yours = owned_by("r1", "r2"), owned_by("r2", "r1")
        one.out_of_reach = "The cluster does not answer"
        one.held.add(("prepare", name(mine)))
        await people.send(spawn(mine, generation=10))
        await until(lambda: one.asked["prepare", name(mine)] == 1)
        await until(lambda: name(mine) in crew.up["r2"].drives(), within=30)
        one.held.clear()
        assert (await people.reaches(name(mine), Phase.READY)).generation == 10
        assert one.calls["start", name(mine)] == 1
        assert not crew.up["r1"].drives()
        assert by_node(await crew.leases())[NODE].replica == "r2", "whom others are sent to"
        before = await people.record(name(mine))
        # Now nobody gets through: nothing is anybody else's than before that.
        other.out_of_reach = "The cluster does not answer"
        await crew.count("r1", "r2")
        await people.send(spawn(yours, generation=10))
        assert (await people.reaches(name(yours), Phase.READY)).generation == 10
        one.out_of_reach = other.out_of_reach = ""
        await crew.share(name(mine), name(yours))
        assert name(mine) in crew.up["r1"].drives()
        assert await people.record(name(mine)) == before


async def test_an_outage_that_all_notice_one_after_the_other_changes_no_hands(
    nats_server: NatsServer, tmp_path: Path, bus: Bus
) -> None:
    one = ScriptedBackend()
    one.cluster = "the-cluster"
    other = copy.copy(one)
    backends = iter([one, other])
    async with replicas(nats_server, tmp_path, lambda: next(backends), bus) as crew:
        await crew.start("r1", "r2")
        lives = [crew.up[replica].worker.siblings for replica in ("r1", "r2")]

        async def both_are(*troubles: bool) -> bool:
            assert all(them.live == {"r1", "r2"} for them in lives)
            return [bool(lease.trouble) for lease in await crew.leases()] == list(troubles)

        one.out_of_reach = "The cluster does not answer"
        await until_async(partial(both_are, True, False))
        other.out_of_reach = one.out_of_reach
        await until_async(partial(both_are, True, True))
        one.out_of_reach = ""
        await until_async(partial(both_are, False, True))
        other.out_of_reach = ""
        await until_async(partial(both_are, False, False))
