"""The engine itself, asked as directly as a client can: the floor under every spawner."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import aiohttp
from aiodocker.containers import DockerContainer

from tests.bench.engine.contender import Seat
from tests.bench.engine.image import PORT
from tests.bench.engine.lab import RUN, Lab

LEGS = ("proxy", "ssh-gateway")
"""What every user's network is attached to."""

_KIND = (
    *("CapAdd", "CapDrop", "SecurityOpt", "PidsLimit", "Init", "LogConfig"),
    *("NanoCpus", "Memory", "MemorySwap", "ShmSize"),
)
"""What decides how much the engine has to do for a container, beside its image and its network."""

Settings = Mapping[str, Any]
"""Of a container, as the engine's API calls them (HostConfig)."""


async def settings_like(container: DockerContainer) -> Settings:
    """What makes another container of the same kind."""
    shown = (await container.show())["HostConfig"]
    return {key: shown[key] for key in _KIND if shown.get(key) is not None}


class RawEngine:
    """Create, start, inspect, with so many at a time; then ask until the server answers."""

    def __init__(
        self, lab: Lab, *, width: int, networks: Mapping[str, str], settings: Settings, label: str = "raw"
    ) -> None:
        """`networks`: the network of each user; `settings`: of every container."""
        self._lab, self._width, self._networks, self._settings = lab, width, networks, settings
        self._label = f"{label}-{width}"

    async def prepare(self, seats: Sequence[Seat]) -> None:
        """There is nothing to be made beforehand."""

    async def up(self, seats: Sequence[Seat]) -> list[float]:
        permits, started = asyncio.Semaphore(self._width), time.monotonic()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session:

            async def ready(seat: Seat) -> float:
                async with permits:
                    host = await self._start(seat)
                await _until_answer(session, f"http://{host}:{PORT}/")
                return time.monotonic() - started

            return await asyncio.gather(*map(ready, seats))

    async def down(self, seats: Sequence[Seat]) -> None:
        permits = asyncio.Semaphore(self._width)

        async def remove(container: DockerContainer) -> None:
            async with permits:
                await container.delete(force=True)

        await asyncio.gather(*(remove(one) for one in await self._lab.containers(self._key)))

    async def _start(self, seat: Seat) -> str:
        """The address of a container that runs."""
        return await self._run(seat, self._networks[seat.user])

    @property
    def _key(self) -> str:
        """Label of this contender's containers."""
        return f"{RUN}.{self._label}"

    async def _run(self, seat: Seat, network: str) -> str:
        container = await self._lab.docker.containers.create(
            {
                "Image": self._lab.image,
                "Labels": {**self._lab.labels, self._key: self._lab.name},
                "HostConfig": {"NetworkMode": network, **self._settings},
            },
            name=f"{self._lab.name}-{self._label}-{seat.user}-{seat.server}",
        )
        await container.start()
        shown = await container.show()
        return str(shown["NetworkSettings"]["Networks"][network]["IPAddress"])


class RawEngineWithNetworks(RawEngine):
    """Makes the network of each user too, and attaches to it what leads there from outside."""

    def __init__(self, lab: Lab, *, width: int, settings: Settings) -> None:
        super().__init__(lab, width=width, networks={}, settings=settings, label="raw-net")
        self._legs: list[DockerContainer] = []

    async def prepare(self, seats: Sequence[Seat]) -> None:
        if not self._legs:
            self._legs = [await self._lab.leg(f"{self._label}-{name}", {}) for name in LEGS]

    async def down(self, seats: Sequence[Seat]) -> None:
        await super().down(seats)
        permits = asyncio.Semaphore(self._width)

        async def remove(name: str) -> None:
            async with permits:
                network = await self._lab.docker.networks.get(name)
                for leg in self._legs:
                    await network.disconnect({"Container": leg.id, "Force": True})
                await network.delete()

        await asyncio.gather(*(remove(self._network(seat)) for seat in seats))

    async def _start(self, seat: Seat) -> str:
        name = self._network(seat)
        network = await self._lab.network(name.removeprefix(f"{self._lab.name}-"))
        attached = [network.connect({"Container": leg.id}) for leg in self._legs]
        async with asyncio.TaskGroup() as group:
            running = group.create_task(self._run(seat, name))
            for attaching in attached:
                group.create_task(attaching)
        return running.result()

    def _network(self, seat: Seat) -> str:
        return f"{self._lab.name}-{self._label}-{seat.user}"


async def _until_answer(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(60):
        while True:
            with suppress(aiohttp.ClientError):
                async with session.get(url) as response:
                    if response.status < 500:
                        return
            await asyncio.sleep(0.02)
