"""Workers that share a node while everything happens to them at once; what is drawn follows from a seed."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from mlhub_shared.bus import Bus, lease
from mlhub_shared.contracts.commands import Command, DeleteWorkspace, SpawnWorkspace
from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord
from mlhub_spawner_worker import siblings
from tests.support.makers import delete, spawn, stop, workspace
from tests.support.nats_server import NatsServer
from tests.support.replicas import NODE, Replicas, on_one, replicas
from tests.support.scripted_backend import ScriptedBackend
from tests.support.waiting import until_async
from tests.support.workers import People

USERS = [f"u{number}" for number in range(10)]
NAMES = [workspace(user).name for user in USERS]
REPLICAS = ("r1", "r2", "r3")
CAPACITY = 4
STEPS = 40
SLOWEST_CALL, LONGEST_BREATH = 0.05, 0.3


class Chaos:
    """Draws what happens next."""

    def __init__(self, seed: int, crew: Replicas, people: People, backend: ScriptedBackend) -> None:
        self._draw, self._crew, self._people, self._backend = random.Random(seed), crew, people, backend
        self._generation = 10
        self._cut: set[str] = set()
        self.last: dict[str, Command] = {}
        self.deaths: set[str] = set()

    async def run(self) -> None:
        """Forty things, and then everything is whole again."""
        await self._crew.start(*REPLICAS, capacity=CAPACITY)
        things: list[Callable[[], Awaitable[None]]] = [self._command, self._hurt, self._die]
        for _ in range(STEPS):
            [happens] = self._draw.choices(things, weights=[6, 2, 1])
            await happens()
            await asyncio.sleep(self._draw.uniform(0, LONGEST_BREATH))
        for name in self._cut:
            await self._crew.up[name].way.mend()
        await self._crew.start(*(name for name in REPLICAS if name not in self._crew.up), capacity=CAPACITY)

    async def _command(self) -> None:
        user = self._draw.choice(USERS)
        self._generation += 1
        kinds: list[Callable[..., Command]] = [spawn, stop, delete]
        [make] = self._draw.choices(kinds, weights=[5, 2, 2])
        command = make(user, generation=self._generation)
        await self._people.send(command)
        self.last[user] = command

    async def _hurt(self) -> None:
        """Kill one, cut one off, or help one; one of them always is whole."""
        name = self._draw.choice(REPLICAS)
        whole = self._crew.up.keys() - self._cut
        if name not in self._crew.up:
            await self._crew.start_one(name, capacity=CAPACITY)
        elif name in self._cut:
            self._cut.discard(name)
            await self._crew.up[name].way.mend()
        elif len(whole) > 1 and self._draw.random() < 0.5:
            await self._crew.kill(name, is_noticed=False)
        elif len(whole) > 1:
            self._cut.add(name)
            await self._crew.up[name].way.cut()

    async def _die(self) -> None:
        """End a workspace by itself."""
        ready = [name for name in sorted(self._backend.running()) if await self._is_ready(name)]
        if ready:
            name = self._draw.choice(ready)
            if name in self._backend.running():
                self._backend.die(name, 1)
                self.deaths.add(name)

    async def _is_ready(self, name: str) -> bool:
        record = await self._people.record(name)
        return record is not None and record.phase is Phase.READY


@pytest.mark.chaos
@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_lost_started_twice_or_left_behind(
    seed: int,
    nats_server: NatsServer,
    tmp_path: Path,
    scripted: ScriptedBackend,
    bus: Bus,
    people: People,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module, changes in (
        (lease, {"TTL": timedelta(seconds=2), "CERTAIN": timedelta(seconds=1.5)}),
        (siblings, {"SETTLE": 0.2, "_LOOK": 0.1}),
    ):
        for constant, value in changes.items():
            monkeypatch.setattr(module, constant, value)
    latencies = random.Random(seed)
    scripted.latency = lambda: latencies.uniform(0, SLOWEST_CALL)
    async with replicas(nats_server, tmp_path, on_one(scripted), bus) as crew:
        chaos = Chaos(seed, crew, people, scripted)
        await chaos.run()
        records: dict[str, WorkspaceRecord] = {}

        async def settled() -> bool:
            records.clear()
            records.update({name: record for name in NAMES if (record := await people.record(name)) is not None})
            ready = {name for name, record in records.items() if record.phase is Phase.READY}
            is_calm = scripted.running() == ready and (len(ready) == CAPACITY or not _queued(records))
            return is_calm and all(
                _is_done(records.get(command.workspace.name), command) for command in chaos.last.values()
            )

        await until_async(settled, within=60)
        await crew.count(*REPLICAS)
        await crew.share(*(name for name, record in records.items() if record.phase is Phase.READY))
    assert {record.node for record in records.values() if record.phase is Phase.READY} <= {NODE}
    assert max(scripted.starts.values(), default=0) <= 1, "each generation is started once"
    assert scripted.most_at_once <= CAPACITY
    assert scripted.scripts.keys() <= records.keys(), "what was deleted has left nothing"
    for name in NAMES:
        told = Counter((event.kind, event.generation) for event in await people.history(name))
        for kind in (EventKind.WORKSPACE_READY, EventKind.WORKSPACE_STARTING, EventKind.WORKSPACE_PREPARING):
            assert all(count == 1 for (other, _), count in told.items() if other is kind)
    failed = {name for name, record in records.items() if record.phase is Phase.FAILED}
    assert failed <= chaos.deaths


def _queued(records: dict[str, WorkspaceRecord]) -> list[str]:
    return [name for name, record in records.items() if record.phase is Phase.QUEUED]


def _is_done(record: WorkspaceRecord | None, command: Command) -> bool:
    """Whether it has become of a workspace what was asked last, or it died since."""
    if isinstance(command, DeleteWorkspace):
        return record is None
    if isinstance(command, SpawnWorkspace):
        done = (Phase.READY, Phase.QUEUED, Phase.FAILED)
        return record is not None and record.generation == command.generation and record.phase in done
    return record is None or record.phase in (Phase.STOPPED, Phase.FAILED)
