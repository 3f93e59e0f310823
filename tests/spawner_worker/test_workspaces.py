"""The worker's service on a real nats-server, over a backend that does as it is told."""

import asyncio
from datetime import timedelta
from pathlib import Path

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.workspace import Phase, Reason, WorkspaceSpec
from tests.support.makers import delete, spawn, stop, workspace
from tests.support.nats_server import NatsServer
from tests.support.scripted_backend import ScriptedBackend
from tests.support.workers import People, never, working

ALICE = workspace().name


def kinds(events: list[object]) -> list[EventKind]:
    return [event.kind for event in events]  # type: ignore[attr-defined]


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
    assert kinds(list(events)) == [
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
