"""Fifty workspaces at once on Kubernetes: what we add to what the cluster takes itself, and what we ask of it."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from mlhub_shared.bus import Bus, Table
from mlhub_shared.contracts.commands import Command, DeleteWorkspace, SpawnWorkspace, StopWorkspace
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord, WorkspaceSecrets, WorkspaceSpec
from tests.bench.bench import Bench
from tests.bench.cluster.place import IMAGE, START, ClusterPlace, cluster_place
from tests.bench.cluster.plain import PlainClient
from tests.bench.deployment import Deployment
from tests.bench.processes import Child
from tests.bench.report import at_most
from tests.bench.sampling import at_once, percentile
from tests.bench.static_server import StaticServer

NAME = "kubernetes-starts"
_OURS, _PLAIN, _PACED = "at once, ours", "at once, plain client", "at 10 a second, ours"
_WITHIN = 120.0
_MIB = 1024 * 1024
_WRITES = {"create", "update", "patch", "delete"}
_NOTE = (
    f"{NAME}: pods of the fake cluster take {START:g} s for themselves and all answer at one web server; ours goes "
    "from the command on the bus to the record that says ready, by the probe through the proxy; the plain client, "
    "kubernetes-asyncio, makes the same objects and sees its pods run, no more; deaths are pods that somebody else "
    "deletes, from the watch's event here to the record"
)


@dataclass
class Pods:
    """When the bench's own watch saw what of a pod."""

    made: dict[str, float] = field(default_factory=dict)
    up: dict[str, float] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)

    def see(self, kind: str, at: float, pod: dict[str, Any]) -> None:
        """Take an event."""
        name, states = pod["metadata"]["name"], (pod["status"].get("containerStatuses") or [{}])[0].get("state", {})
        self.made.setdefault(name, at)
        if "running" in states:
            self.up.setdefault(name, at)
        if kind == "DELETED":
            self.gone.setdefault(name, at)


@dataclass(frozen=True)
class Turn:
    """What one crowd of workspaces took."""

    ready: Sequence[float]
    """Seconds from the wish, each."""
    own: Sequence[float]
    """Of these, the pod's own."""
    calls: Counter[str] = field(default_factory=Counter)
    """Of the worker, for their whole lives."""
    cpu: float = 0.0
    """Seconds of the worker's."""

    def added(self, share: float) -> float:
        """Milliseconds beyond the pod's own, of which this share of them needed no more."""
        return percentile([(one - own) * 1000 for one, own in zip(self.ready, self.own, strict=True)], share)


class Ours:
    """A worker on the cluster, asked over the bus as the hub does."""

    def __init__(self, hub: str, bus: Bus, worker: Child, place: ClusterPlace, pods: Pods) -> None:
        self.hub, self._bus, self.worker, self._place, self.pods = hub, bus, worker, place, pods
        self._table: Table[WorkspaceRecord] = bus.start_table(bus.workspaces)
        self._numbers = count()
        self._generations = count(time.time_ns() // 1000)

    def new(self, amount: int) -> list[WorkspaceId]:
        """Workspaces that nobody has asked for yet."""
        return [WorkspaceId(hub=self.hub, user=f"user{next(self._numbers)}") for _ in range(amount)]

    async def turn(self, amount: int, *, apart: float = 0.0) -> Turn:
        """Their whole lives, each asked for so many seconds after the one before."""
        await self._calls()
        them, cpu = self.new(amount), self.worker.cpu_seconds()
        asked, ready = await self.start(them, apart=apart)
        await self.end(them)
        names = [one.name for one in them]
        return Turn(
            [ready[name] - asked[name] for name in names],
            [self.pods.up[name] - self.pods.made[name] for name in names],
            await self._calls(),
            self.worker.cpu_seconds() - cpu,
        )

    async def start(
        self, them: Sequence[WorkspaceId], *, apart: float = 0.0
    ) -> tuple[dict[str, float], dict[str, float]]:
        """When each was asked for, and when its record said ready."""
        asked: dict[str, float] = {}

        async def ask(one: WorkspaceId) -> None:
            await asyncio.sleep(apart * them.index(one))
            generation = next(self._generations)
            secrets = WorkspaceSecrets(generation=generation, env={"JUPYTERHUB_API_TOKEN": "token-of-the-bench"})
            await self._bus.secrets.put(one.name, secrets)
            asked[one.name] = time.monotonic()
            await self._send(
                SpawnWorkspace(
                    workspace=one,
                    generation=generation,
                    base_url=f"/user/{one.user}/",
                    spec=WorkspaceSpec(),
                    requester=f"user:{one.user}",
                )
            )

        ready = asyncio.ensure_future(
            self.reach(them, lambda record: record is not None and record.phase is Phase.READY)
        )
        await at_once(50, them, ask)
        return asked, await ready

    async def end(self, them: Sequence[WorkspaceId]) -> None:
        """Stop, then delete them."""
        await at_once(50, them, lambda one: self._send(self._command(StopWorkspace, one)))
        await self.reach(them, lambda record: record is None or not record.phase.is_active)
        await at_once(50, them, lambda one: self._send(self._command(DeleteWorkspace, one)))
        await self.reach(them, lambda record: record is None)

    async def reach(
        self, them: Sequence[WorkspaceId], wanted: Callable[[WorkspaceRecord | None], bool]
    ) -> dict[str, float]:
        """When each of their records was as wanted."""
        waiting, found = {one.name for one in them}, dict[str, float]()
        async with asyncio.timeout(_WITHIN):
            with self._table.changes() as changes:
                while True:
                    there = {name for name in waiting if wanted(self._table.value(name))}
                    found |= dict.fromkeys(there, time.monotonic())
                    waiting -= there
                    if not waiting:
                        return found
                    await anext(changes)

    async def death(self, plain: PlainClient, one: WorkspaceId) -> float:
        """Milliseconds from the event to the record."""
        known = asyncio.ensure_future(self.reach([one], lambda record: record is None or not record.phase.is_active))
        await plain.kill(one.name)
        at = (await known)[one.name]
        async with asyncio.timeout(_WITHIN):
            while one.name not in self.pods.gone:  # noqa: ASYNC110  (it is about to be told)
                await asyncio.sleep(0.001)
        return (at - self.pods.gone[one.name]) * 1000

    def _command(self, kind: type[StopWorkspace] | type[DeleteWorkspace], one: WorkspaceId) -> Command:
        return kind(workspace=one, generation=next(self._generations), requester=f"user:{one.user}")

    async def _send(self, command: Command) -> None:
        if not await self._bus.send(command, pool="default"):
            raise RuntimeError(f"the bus did not take {command}")

    async def _calls(self) -> Counter[str]:
        return Counter() if self._place.is_real else Counter(await self._place.calls())


class Plain:
    """The plain client."""

    def __init__(self, client: PlainClient, like: dict[str, Any]) -> None:
        self._client, self._like = client, like
        self._numbers = count()
        self._pods = Pods()
        client.follow("mlhub.bench=plain", self._pods.see)

    async def turn(self, amount: int) -> Turn:
        """Make them and see them run; their removal does not count."""
        names = [f"plain-{next(self._numbers)}" for _ in range(amount)]
        asked = time.monotonic()
        await at_once(50, names, lambda name: self._client.make(name, self._like))
        async with asyncio.timeout(_WITHIN):
            while not all(name in self._pods.up for name in names):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await self._client.remove(names)
        own = [self._pods.up[name] - self._pods.made[name] for name in names]
        return Turn([self._pods.up[name] - asked for name in names], own)


async def measure(bench: Bench) -> None:
    """Crowds of ours and of the plain client's in turns, then a thousand that stay."""
    amount, many, dead = bench.amount(50, 5), bench.amount(1000, 20), bench.amount(200, 5)
    async with _ours(bench) as (ours, client):
        [example] = ours.new(1)
        await ours.start([example])
        plain = Plain(client, dict(await client.alike(example.name)))
        await ours.end([example])
        contenders: dict[str, Callable[[int], Awaitable[Turn]]] = {
            _OURS: ours.turn,
            _PLAIN: plain.turn,
            _PACED: partial(ours.turn, apart=0.1),
        }
        turns: dict[str, list[Turn]] = {name: [] for name in contenders}
        for _ in range(bench.runs):
            for name, turn in contenders.items():
                turns[name].append(await turn(amount))
        _report(bench, amount, turns)
        await _thousand(bench, ours, client, many=many, dead=dead)
    bench.report.notes.append(_NOTE)


@asynccontextmanager
async def _ours(bench: Bench) -> AsyncIterator[tuple[Ours, PlainClient]]:
    folder = bench.folder
    async with (
        StaticServer("workspaces", folder) as workspaces,
        cluster_place(folder) as place,
        PlainClient(place) as client,
    ):
        profile = {"name": "bench", "image": IMAGE} | ({} if place.is_real else {"port": workspaces.port})
        (folder / "profiles.yaml").write_text(yaml.safe_dump({"profiles": [profile]}))
        settings = {
            "PYTHONPATH": _as_in_its_image(folder),
            "MLHUB_SPAWNER_WORKER_BACKEND": "kubernetes",
            "MLHUB_SPAWNER_WORKER_KUBECONFIG": place.worker,
            "MLHUB_PROFILES_FILE": folder / "profiles.yaml",
        }
        async with Deployment(folder, settings=settings) as deployment, deployment.bus() as bus:
            await deployment.start_proxy(hub_url=workspaces.url)
            worker = await deployment.start_worker()
            pods = Pods()
            client.follow(f"mlhub.origin={deployment.hub}", pods.see)
            yield Ours(deployment.hub, bus, worker, place, pods), client


def _as_in_its_image(folder: Path) -> str:
    """Without what only the tests install: kubernetes-asyncio would load it, with twenty megabytes of grammars."""
    hidden = folder / "hidden"
    hidden.mkdir()
    (hidden / "kubernetes_validate.py").write_text("raise ImportError\n")
    return f"{hidden}:{Path(__file__).parents[3]}"


def _report(bench: Bench, amount: int, turns: dict[str, list[Turn]]) -> None:
    report, ours = bench.report, turns[_OURS]
    for share, words in ((0.5, "p50"), (0.95, "p95"), (1.0, "max")):
        added = {name: [one.added(share) for one in runs] for name, runs in turns.items()}
        for name, values in added.items():
            goal = None if name == _PLAIN else at_most(300)
            report.add(NAME, f"{amount} {name}, added to the pod's own, {words}", "ms", values, goal)
        more = [one - other for one, other in zip(added[_OURS], added[_PLAIN], strict=True)]
        report.add(NAME, f"{amount} at once, added, ours - plain client, {words}", "ms", more, at_most(300))
    lasts = {name: [max(one.ready) for one in turns[name]] for name in (_OURS, _PLAIN)}
    for name, values in lasts.items():
        report.add(NAME, f"{amount} {name}, last ready", "s", values)
    report.versus(NAME, f"{amount} at once, rate, ours / plain client", lasts[_PLAIN], lasts[_OURS])
    report.add(NAME, "worker's CPU per life", "ms", [one.cpu / amount * 1000 for one in ours])
    if any(one.calls for one in ours):
        writes = [sum(n for call, n in one.calls.items() if call.split()[0] in _WRITES) / amount for one in ours]
        report.add(NAME, "API writes per life", "", writes, at_most(8))
        report.add(NAME, "API calls per life", "", [one.calls.total() / amount for one in ours])
        lists = [sum(n for call, n in one.calls.items() if call.startswith("list")) for one in ours]
        report.add(NAME, "lists in steady state", "", lists, at_most(0))


async def _thousand(bench: Bench, ours: Ours, client: PlainClient, *, many: int, dead: int) -> None:
    """What they cost while they run, and how soon a death is known."""
    them = ours.new(many)
    for first in range(0, many, 50):
        await ours.start(them[first : first + 50])
    report = bench.report
    report.add(NAME, f"worker's memory, {many:,} records", "MiB", [ours.worker.memory_bytes() / _MIB], at_most(150))
    idle = bench.amount(20, 1)
    before = ours.worker.cpu_seconds()
    await asyncio.sleep(idle)
    report.add(NAME, f"worker's CPU, {many:,} at rest", "%", [(ours.worker.cpu_seconds() - before) / idle * 100])
    deaths = [await ours.death(client, one) for one in them[:dead]]
    report.add(NAME, "watch event to record, p50", "ms", [percentile(deaths, 0.5)])
    report.add(NAME, "watch event to record, p99", "ms", [percentile(deaths, 0.99)], at_most(50))
    for first in range(0, many, 50):
        await ours.end(them[first : first + 50])
