"""Nodes: who is away, who is drained, and what workspaces there look like meanwhile."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from mlhub_hub.nodes import Nodes, NodeState, all_nodes
from mlhub_shared.bus import Bus
from mlhub_shared.contracts.services import WorkerLease
from mlhub_shared.contracts.workspace import Phase
from tests.hub.conftest import Stage
from tests.hub.web import WebSession
from tests.support.hub_process import ADMIN_PASSWORD
from tests.support.makers import record
from tests.support.nats_server import NatsServer
from tests.support.waiting import until, until_async

GRACE = timedelta(seconds=0.3)


def lease(node: str = "n1", **fields: object) -> WorkerLease:
    values = {"node": node, "pool": "default", "backend": "docker", "started_at": datetime.now(UTC)}
    return WorkerLease.model_validate(values | fields)


async def test_a_node_is_away_only_after_a_while_and_back_at_once(bus: Bus) -> None:
    table = bus.start_table(bus.workers)
    await table.synced()
    await bus.workers.put("n1", lease())
    await until(lambda: table.value("n1") is not None)
    nodes = Nodes(table, away_after=GRACE)
    bus.run(nodes.run())
    here = record(phase=Phase.READY, node="n1")
    with nodes.changes() as changes:
        await bus.workers.delete("n1")
        assert await asyncio.wait_for(anext(changes), 5) == {"n1"}
        assert not nodes.is_unreachable(here), "a restart takes no longer"
        assert await asyncio.wait_for(anext(changes), 5) == {"n1"}
        assert nodes.is_unreachable(here)
        await bus.workers.put("n1", lease(running=3))
        assert await asyncio.wait_for(anext(changes), 5) == {"n1"}
        assert not nodes.is_unreachable(here)
        await bus.workers.put("n1", lease(running=4))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(changes), 0.5)


async def test_a_node_that_workers_share_is_away_only_when_none_of_them_is_left(bus: Bus) -> None:
    table = bus.start_table(bus.workers)
    await table.synced()
    nodes = Nodes(table, away_after=timedelta(0))
    bus.run(nodes.run())
    here = record(phase=Phase.READY, node="n1")
    with nodes.changes() as changes:
        for replica in ("r1", "r2"):
            await bus.workers.put(f"n1.{replica}", lease(replica=replica))
        assert await asyncio.wait_for(anext(changes), 5) == {"n1"}
        await bus.workers.delete("n1.r1")
        await until(lambda: len(table) == 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(changes), 0.3)
        assert not nodes.is_unreachable(here)
        await bus.workers.delete("n1.r2")
        assert await asyncio.wait_for(anext(changes), 5) == {"n1"}
        assert nodes.is_unreachable(here)


async def test_only_what_is_up_on_a_node_can_be_unreachable(bus: Bus) -> None:
    table = bus.start_table(bus.workers)
    await table.synced()
    nodes = Nodes(table, away_after=timedelta(0))
    for phase in Phase:
        is_up = phase in {Phase.PREPARING, Phase.STARTING, Phase.READY}
        assert nodes.is_unreachable(record(phase=phase, node="gone")) is is_up, phase
    assert not nodes.is_unreachable(record(phase=Phase.QUEUED, node=None))
    assert not nodes.is_unreachable(None)


async def test_while_the_bus_is_away_nobody_is_called_unreachable(nats_server: NatsServer, bus: Bus) -> None:
    table = bus.start_table(bus.workers)
    await table.synced()
    await bus.workers.put("n1", lease(), ttl=timedelta(seconds=1))
    await until(lambda: table.value("n1") is not None)
    nodes = Nodes(table, away_after=GRACE)
    bus.run(nodes.run())
    await nats_server.kill()
    await asyncio.sleep(1.5)
    assert not nodes.is_away("n1"), "nobody can say"
    assert nodes.is_away("n2")


def test_every_node_is_listed_also_one_that_only_has_workspaces() -> None:
    records = [
        record("a", phase=Phase.READY, node="n2"),
        record("b", phase=Phase.STOPPED, node="n2"),
        record("c", phase=Phase.READY, node="n1"),
    ]
    nodes = all_nodes([lease("n1"), lease("n3", draining=True)], records)
    assert [(node.name, node.state, node.workspaces) for node in nodes] == [
        ("n1", NodeState.UP, 1),
        ("n2", NodeState.AWAY, 1),
        ("n3", NodeState.DRAINING, 0),
    ]


def test_a_node_that_workers_share_is_listed_once_as_the_one_tells_it_that_is_there_the_longest() -> None:
    now = datetime.now(UTC)
    shared = [
        lease("n1", replica="r2", started_at=now, running=2),
        lease("n1", replica="r1", started_at=now - timedelta(hours=1), running=3),
        lease("n1", replica="r3", started_at=now + timedelta(hours=1), running=0),
    ]
    [node] = all_nodes(shared, [record(phase=Phase.READY, node="n1")])
    assert node.lease is not None
    assert (node.name, node.lease.replica, node.lease.running, node.workspaces) == ("n1", "r1", 3, 1)


@pytest.mark.asyncio(loop_scope="module")
async def test_an_admin_drains_a_node_over_the_api(stage: Stage) -> None:
    stage.worker.say(cpu_total=16, cpu_granted=4, labels={"zone": "b"}, gpus=("0", "1"), gpus_free=("1",))

    async def is_told() -> bool:
        [node] = await stage.api("GET", "/nodes", expect=200)
        return bool(node["cpu_total"] == 16)

    await until_async(is_told)
    node = await stage.api("GET", "/nodes/node1", expect=200)
    assert (node["state"], node["cpu_granted"], node["gpus_free"]) == ("up", 4, ["1"])
    assert "attach" not in node
    changed = await stage.api("PATCH", "/nodes/node1", {"draining": True}, expect=200)
    assert (changed["state"], changed["draining"]) == ("draining", True)
    assert (await stage.api("PATCH", "/nodes/node1", {"draining": False}, expect=200))["state"] == "up"
    assert [(query.draining, query.requester) for query in stage.worker.drains] == [
        (True, "service:automation"),
        (False, "service:automation"),
    ]
    for body in ({}, {"draining": "yes"}, {"draining": True, "more": 1}, [True]):
        assert await stage.api.status("PATCH", "/nodes/node1", body) == 400, body
    assert await stage.api.status("PATCH", "/nodes/none", {"draining": True}) == 404
    await stage.user("una")
    user = await stage.token_of("una")
    assert await user.status("GET", "/nodes") == 403
    assert await user.status("PATCH", "/nodes/node1", {"draining": True}) == 403


@pytest.mark.asyncio(loop_scope="module")
async def test_a_workspace_whose_node_is_away_is_unreachable_everywhere_and_comes_back(stage: Stage) -> None:
    await stage.user("far")
    await stage.api("POST", "/users/far/server", expect=202)
    await stage.until_ready("far")
    admin = WebSession(stage.hub.url)
    await admin.login("admin", ADMIN_PASSWORD)
    stage.worker.leave()
    model = await stage.api("GET", "/users/far/servers/", expect=200)
    assert model["ready"], "its worker may only be restarting"

    async def is_unreachable() -> bool:
        return "Unreachable" in (await admin.get("home", user="far")).text

    await until_async(is_unreachable, within=30)
    model = await stage.api("GET", "/users/far/servers/", expect=200)
    assert (model["ready"], model["stopped"], model["workspace"]["status"]) == (False, False, "unreachable")
    assert "node1 does not answer" in model["workspace"]["message"]
    async with stage.api.progress("far") as progress:
        [line] = await progress.to_end()
    assert "node1 does not answer" in line["message"]
    assert not line.get("ready")
    assert not line.get("failed")
    assert (await stage.api("GET", "/nodes/node1", expect=200))["state"] == "away"
    assert await stage.api.status("PATCH", "/nodes/node1", {"draining": True}) in {200, 503}
    await stage.worker.live()

    async def is_back() -> bool:
        return bool((await stage.api("GET", "/users/far/servers/", expect=200))["ready"])

    await until_async(is_back)
    assert not await is_unreachable()
    assert not [command for command in stage.worker.commands if command.kind == "stop"]
    await admin.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_workers_that_share_a_node_count_once(stage: Stage) -> None:
    for replica in ("r1", "r2"):
        await stage.bus.workers.put(f"shared.{replica}", lease("shared", replica=replica, capacity=3, running=3))

    async def listed() -> list[str]:
        return [node["node"] for node in await stage.api("GET", "/nodes", expect=200)]

    async def is_listed() -> bool:
        return await listed() == ["node1", "shared"]

    await until_async(is_listed)
    stage.worker.spawn_until = Phase.QUEUED
    await stage.user("wim")
    await stage.api("POST", "/users/wim/server", expect=202)
    await stage.until_phase("ws-wim-test", Phase.QUEUED)
    async with stage.api.progress("wim") as progress:
        await progress.until(message="Queued: 1st in line, all 5 places are taken")
    stage.worker.spawn_until = Phase.READY
    await stage.bus.workers.delete("shared.r1")
    assert await listed() == ["node1", "shared"]
    await stage.bus.workers.delete("shared.r2")

    async def is_gone() -> bool:
        return await listed() == ["node1"]

    await until_async(is_gone)
    await stage.api("DELETE", "/users/wim/server", expect=204)
