"""Hubs that start containers: ours, and the stock one with DockerSpawner."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.bench.bench import Bench
from tests.bench.deployment import Deployment
from tests.bench.engine.contender import Seat
from tests.bench.engine.lab import RUN, Lab
from tests.bench.engine.raw import LEGS
from tests.bench.peers.docker_spawner import DockerSpawnerHub
from tests.bench.rest import HubClient

OPTIONS = {"is_mount_volume": False}
"""Of our workspaces: no contender mounts a volume."""


class HubContender:
    """A hub as its REST API shows it."""

    def __init__(self, lab: Lab, client: HubClient, *, label: str, ours: bool) -> None:
        """`label`: of its containers; its value is the lab's name."""
        self._lab, self._client, self._label = lab, client, label
        self._options = OPTIONS if ours else {}
        self._kept = 0

    async def keep(self, seats: Sequence[Seat]) -> None:
        """Start these for good, so that the networks of their users stay."""
        await asyncio.gather(*(self._client.spawn(seat.user, seat.server, self._options) for seat in seats))
        self._kept += len(seats)

    async def prepare(self, seats: Sequence[Seat]) -> None:
        """The users of the hub are there beforehand."""

    async def up(self, seats: Sequence[Seat]) -> list[float]:
        started = time.monotonic()

        async def ready(seat: Seat) -> float:
            await self._client.spawn(seat.user, seat.server, self._options)
            return time.monotonic() - started

        return await asyncio.gather(*map(ready, seats))

    async def down(self, seats: Sequence[Seat]) -> None:
        await asyncio.gather(*(self._client.remove(seat.user, seat.server) for seat in seats))
        await self._lab.until_left(self._label, containers=self._kept)


class NewUsers(HubContender):
    """Ours, asked by users of whom the engine knows nothing yet, and who leave nothing behind."""

    async def prepare(self, seats: Sequence[Seat]) -> None:
        await self._client.create_users([seat.user for seat in seats])

    async def down(self, seats: Sequence[Seat]) -> None:
        await asyncio.gather(*(self._client.delete_user(seat.user) for seat in seats))
        await self._lab.until_left(self._label, containers=0, networks=0)


@asynccontextmanager
async def ours(bench: Bench, lab: Lab) -> AsyncIterator[Deployment]:
    """Our services on this engine, with containers that stand where proxy and gateway would be attached."""
    settings = {
        "MLHUB_HUB_BACKEND": "docker",
        "MLHUB_DEFAULT_IMAGE": lab.image,
        "MLHUB_SPAWNER_WORKER_BACKEND": "docker",
        "MLHUB_SPAWNER_WORKER_DOCKER_URL": lab.url,
        "MLHUB_SPAWNER_WORKER_REACH": "services",
        "MLHUB_SPAWNER_WORKER_NETWORK_POOL": lab.pools[0],
        # One set of rules for the whole pool, made by an image that the bench has not.
        "MLHUB_SPAWNER_WORKER_FIREWALL": "false",
        "MLHUB_SPAWNER_WORKER_PULL": "never",
    }
    for service in LEGS:
        await lab.leg(service, {"mlhub.deployment": lab.name, "mlhub.service": service})
    async with Deployment(bench.folder / "ours", hub=lab.name, settings=settings) as deployment:
        yield deployment


@asynccontextmanager
async def our_hub(
    bench: Bench, lab: Lab, users: Sequence[str], *, kind: type[HubContender] = HubContender
) -> AsyncIterator[HubContender]:
    """The whole deployment, with these users."""
    async with ours(bench, lab) as deployment:
        await deployment.start_proxy()
        await deployment.start_worker()
        await deployment.start_hub()
        async with deployment.client() as client:
            if users:
                await client.create_users(users)
            yield kind(lab, client, label="mlhub.origin", ours=True)


@asynccontextmanager
async def docker_spawner(bench: Bench, lab: Lab, users: Sequence[str], python: str) -> AsyncIterator[HubContender]:
    """The stock hub; all its servers are on one network, as it knows no other way."""
    await lab.network("shared")
    key = f"{RUN}.docker-spawner"
    hub = DockerSpawnerHub(
        bench.folder / "docker-spawner",
        python=python,
        engine=lab.url,
        image=lab.image,
        network=f"{lab.name}-shared",
        prefix=f"{lab.name}-ds",
        labels={**lab.labels, key: lab.name},
        chp=bench.chp,
    )
    async with hub, hub.client() as client:
        await hub.answers(f"{hub.url}/hub/api/")
        await client.create_users(users)
        yield HubContender(lab, client, label=key, ours=False)
