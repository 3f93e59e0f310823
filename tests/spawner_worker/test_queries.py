"""What others ask a worker, over the bus."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.queries import (
    DESCRIBE_WORKSPACE,
    EXTEND_WORKSPACE,
    LIST_PORTS,
    LIST_RESOURCES,
    OPEN_PORT,
    RESOLVE_TARGET,
    DescribeWorkspace,
    ExtendWorkspace,
    ListPorts,
    ListResources,
    OpenPort,
    Port,
    Ports,
    ResolveTarget,
    Resources,
    Target,
    WorkspaceDescription,
)
from mlhub_shared.contracts.workspace import Endpoint, Phase, WorkspaceRecord, WorkspaceSpec
from mlhub_shared.errors import MLHubError, Permanent
from mlhub_spawner_worker.backends.base import Listening
from tests.support.makers import spawn, stop, workspace
from tests.support.nats_server import NatsServer
from tests.support.scripted_backend import ScriptedBackend
from tests.support.waiting import until_async
from tests.support.workers import People, working

ALICE = workspace().name


async def resolved(bus: Bus) -> Target:
    return await bus.ask(RESOLVE_TARGET, ResolveTarget(workspace=workspace()), Target)


async def test_any_worker_tells_where_ssh_into_a_ready_workspace_goes(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, bus: Bus, people: People
) -> None:
    async def answers() -> bool:
        try:
            return (await resolved(bus)).record is None
        except MLHubError:
            return False

    async with working(nats_server, tmp_path / "w1", scripted):
        await until_async(answers)
        await people.send(spawn(generation=10))
        await people.reaches(ALICE, Phase.READY)
        async with working(nats_server, tmp_path / "w2", ScriptedBackend(), node="n2"):

            async def both_agree() -> bool:
                found = [(await resolved(bus)).attach for _ in range(6)]
                return all(attach is not None and attach == found[0] for attach in found)

            await until_async(both_agree)
        await people.send(stop(generation=20))
        await people.reaches(ALICE, Phase.STOPPED)

        async def closed() -> bool:
            target = await resolved(bus)
            return target.record is not None and target.attach is None

        await until_async(closed)


async def test_a_node_tells_what_it_sees(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, bus: Bus, people: People
) -> None:
    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(spawn(generation=10))
        await people.reaches(ALICE, Phase.READY)
        query = DescribeWorkspace(workspace=workspace())
        seen = await bus.ask(DESCRIBE_WORKSPACE, query, WorkspaceDescription, node="n1")
        assert (seen.running, seen.log_tail) == (True, "the last line\n")
        resources = await bus.ask(LIST_RESOURCES, ListResources(), Resources, node="n1")
        assert [resource.workspace for resource in resources.resources] == [workspace()]


async def test_a_node_tells_of_ports_and_where_they_are_reached(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, bus: Bus, people: People
) -> None:
    there = Endpoint(host="10.0.0.7", port=6006)
    scripted.listens = [Listening(6006, "tensorboard", there), Listening(40404, is_internal=True)]
    async with working(nats_server, tmp_path / "w", scripted):
        await people.send(spawn(generation=10))
        await people.reaches(ALICE, Phase.READY)
        listed = await bus.ask(LIST_PORTS, ListPorts(workspace=workspace()), Ports, node="n1")
        assert listed.ports == [Port(port=6006, program="tensorboard")]
        query = OpenPort(workspace=workspace(), port=6006)
        assert await bus.ask(OPEN_PORT, query, Endpoint, node="n1") == there
        with pytest.raises(Permanent, match="nothing listens on port 80 of this workspace"):
            await bus.ask(OPEN_PORT, query.model_copy(update={"port": 80}), Endpoint, node="n1")


async def test_an_expiry_is_put_off_and_told(
    nats_server: NatsServer, tmp_path: Path, scripted: ScriptedBackend, bus: Bus, people: People
) -> None:
    later = datetime.now(UTC) + timedelta(hours=8)
    async with working(nats_server, tmp_path / "w", scripted, max_days_to_live=1):
        await people.send(spawn(generation=10, spec=WorkspaceSpec(lifetime=timedelta(hours=1))))
        await people.reaches(ALICE, Phase.READY)

        async def extend(until: datetime | None, generation: int = 10) -> WorkspaceRecord:
            query = ExtendWorkspace(
                workspace=workspace(),
                generation=generation,
                expires_at=until,
                requester="user:alice",
                correlation_id="c1",
            )
            return await bus.ask(EXTEND_WORKSPACE, query, WorkspaceRecord, node="n1")

        assert (await extend(later)).expires_at == later
        await extend(later)
        stored = await people.record(ALICE)
        assert stored is not None
        assert stored.expires_at == later
        for until, generation, why in (
            (None, 10, "at most 1 days"),
            (later + timedelta(days=2), 10, "at most 1 days"),
            (datetime.now(UTC) - timedelta(seconds=1), 10, "has passed"),
            (later, 9, "look again"),
        ):
            with pytest.raises(Permanent, match=why):
                await extend(until, generation)
        assert scripted.scripts[ALICE].record.expires_at == later, "kept beside the workspace too"
        await people.send(stop(generation=20))
        await people.reaches(ALICE, Phase.STOPPED)
        with pytest.raises(Permanent):
            await extend(later, 20)
    events = [event for event in await people.history(ALICE) if event.kind is EventKind.WORKSPACE_EXTENDED]
    assert [event.requester for event in events] == ["user:alice"]
