"""Workers that share one cluster, each of which a test kills, cuts off and starts anew."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlhub_shared.bus import Bus, BusSettings
from mlhub_shared.contracts.services import WorkerLease
from mlhub_shared.runtime.health import Health
from mlhub_shared.runtime.http import create_app
from mlhub_shared.runtime.service import Runtime
from mlhub_spawner_worker.backends.base import Backend
from mlhub_spawner_worker.factory import running_worker
from mlhub_spawner_worker.probe import Probe
from mlhub_spawner_worker.settings import SpawnerWorkerSettings
from mlhub_spawner_worker.worker import Worker
from tests.support.nats_server import PASSWORD, USER, NatsServer
from tests.support.scripted_backend import ScriptedBackend
from tests.support.waiting import until, until_async
from tests.support.wire import Wire, wire
from tests.support.workers import always

NODE = "kubernetes"


@dataclass
class Replica:
    """One worker with its own way to the bus."""

    worker: Worker
    bus: Bus
    way: Wire
    life: contextlib.AsyncExitStack
    health: Health

    def drives(self) -> set[str]:
        """The workspaces it acts for now."""
        return set(self.worker.workspaces.driven())


class Replicas:
    """The workers of one node."""

    def __init__(self, server: NatsServer, folder: Path, make_backend: Callable[[], Backend], bus: Bus) -> None:
        self._server, self._folder, self._bus, self._make_backend = server, folder, bus, make_backend
        self.up: dict[str, Replica] = {}

    async def start(self, *names: str, probe: Probe = always, **settings: Any) -> None:
        """Start workers, and wait until each acts for its part."""
        for name in names:
            await self.start_one(name, probe=probe, **settings)
        await self.count(*self.up)

    async def count(self, *names: str) -> None:
        """Wait until all of these, and nobody else, are seen by all of these."""
        await until(lambda: all(self.up[name].worker.siblings.live == set(names) for name in names))

    async def end(self, name: str) -> None:
        """End one as SIGTERM does."""
        await self.up.pop(name).life.aclose()

    async def kill(self, name: str, *, is_noticed: bool = True) -> None:
        """End one without a word. `is_noticed`: the time of its lease passes at once."""
        replica = self.up.pop(name)
        await replica.way.cut()
        await replica.life.aclose()
        if is_noticed:
            await self.expire(name)

    async def expire(self, name: str) -> None:
        """Let the time of a lease pass."""
        await self._bus.workers.delete(f"{NODE}.{name}")

    async def leases(self) -> list[WorkerLease]:
        """Those that are out."""
        entries = [await self._bus.workers.get(f"{NODE}.{name}") for name in self.up]
        return [entry.value for entry in entries if entry is not None]

    @contextlib.asynccontextmanager
    async def bus_away(self) -> AsyncIterator[None]:
        """The server is down, and its store a test's to do with as it likes."""
        # By a way that leads nowhere a connection would be taken, and let go of: nats-py forgets to close its end.
        for replica in self.up.values():
            await replica.way.cut()
        await self._server.kill()
        yield
        await self._server.start()
        for replica in self.up.values():
            await replica.way.mend()

    async def aclose(self) -> None:
        for name in list(self.up):
            await self.end(name)

    async def share(self, *names: str) -> None:
        """Wait until each of these workspaces is driven by exactly one of them."""

        async def shared() -> bool:
            driven = [name for replica in self.up.values() for name in replica.drives()]
            return sorted(driven) == sorted(names)

        await until_async(shared)

    async def start_one(self, name: str, *, probe: Probe = always, **settings: Any) -> None:
        """Start one, whatever the others are up to; it acts before long."""
        values: dict[str, Any] = {"node": NODE, "replica": name, "stop_grace": 0.5, "secrets_patience": 0.3}
        life = contextlib.AsyncExitStack()
        way = await life.enter_async_context(wire(self._server.port))
        bus = await Bus.open(
            BusSettings(
                url=f"nats://127.0.0.1:{way.port}", hub="test", service="spawner-worker", user=USER, password=PASSWORD
            )
        )
        life.push_async_callback(bus.close)
        health = Health()
        runtime = Runtime("spawner-worker", bus, create_app("spawner-worker", health, None), health)
        life.push_async_callback(runtime.end)
        configured = SpawnerWorkerSettings(data_dir=self._folder / name, **(values | settings))
        worker = await life.enter_async_context(
            running_worker(runtime, configured, backend=self._make_backend(), probe=probe)
        )
        await asyncio.wait_for(worker.reconciler.done.wait(), 20)
        self.up[name] = Replica(worker, bus, way, life, health)


@contextlib.asynccontextmanager
async def replicas(
    server: NatsServer, folder: Path, make_backend: Callable[[], Backend], bus: Bus
) -> AsyncIterator[Replicas]:
    """None at first; all are ended in the end."""
    async with contextlib.aclosing(Replicas(server, folder, make_backend, bus)) as them:
        yield them


def on_one(backend: ScriptedBackend) -> Callable[[], Backend]:
    """Makes of one scripted backend the cluster of all workers."""
    backend.cluster = "the-cluster"
    return lambda: backend
