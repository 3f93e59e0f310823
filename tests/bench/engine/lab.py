"""One measure's share of the engine: an image, addresses nobody has, labels; nothing is left of it at the end."""

import asyncio
import os
import secrets
import struct
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import aiohttp
from aiodocker import Docker
from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError
from aiodocker.networks import DockerNetwork

from tests.bench.bench import Bench, NotAvailableError
from tests.bench.engine.image import build

RUN = "mlhub.bench"
"""Label of what the bench itself makes; its value is the name of the lab."""
_OURS = ("mlhub.origin", "mlhub.deployment")
"""Labels of what a deployment makes that is called like the lab."""
_USER_PREFIX = 26
"""Of a user's network, as ours has it by default."""


@dataclass
class Lab:
    """The engine, and what one measure may use of it."""

    docker: Docker
    url: str
    name: str
    """Also the name of the deployment that is measured."""
    image: str
    pool: IPv4Network
    """For networks of users, of all contenders together."""
    _subnets: Iterator[IPv4Network] = field(init=False)

    def __post_init__(self) -> None:
        self._subnets = self.pools[1].subnets(new_prefix=_USER_PREFIX)

    @property
    def pools(self) -> tuple[IPv4Network, IPv4Network]:
        """One for our deployment, one for whoever asks for a network here."""
        first, second = self.pool.subnets(prefixlen_diff=1)
        return first, second

    @property
    def labels(self) -> dict[str, str]:
        """Of all that is made here."""
        return {RUN: self.name}

    async def network(self, name: str) -> DockerNetwork:
        """A bridge with a subnet of its own."""
        subnet = next(self._subnets)
        return await self.docker.networks.create(
            {
                "Name": f"{self.name}-{name}",
                "Driver": "bridge",
                "Labels": self.labels,
                "IPAM": {"Config": [{"Subnet": str(subnet), "Gateway": str(subnet[1])}]},
            }
        )

    async def leg(self, name: str, labels: Mapping[str, str]) -> DockerContainer:
        """A container that is to be attached to networks, as a proxy is."""
        container = await self.docker.containers.create(
            {"Image": self.image, "Labels": {**self.labels, **labels}}, name=f"{self.name}-{name}"
        )
        await container.start()
        return container

    async def containers(self, label: str) -> list[DockerContainer]:
        """Those that carry a label with this lab's name, also the stopped ones."""
        return await self.docker.containers.list(all=True, filters={"label": [f"{label}={self.name}"]})

    async def networks(self, label: str) -> list[DockerNetwork]:
        """Likewise."""
        found = await self.docker.networks.list(filters={"label": [f"{label}={self.name}"]})
        return [DockerNetwork(self.docker, one["Id"]) for one in found]

    async def until_left(self, label: str, *, containers: int, networks: int | None = None) -> None:
        """Wait until no more than so many are left."""
        async with asyncio.timeout(180):
            while len(await self.containers(label)) > containers:  # noqa: ASYNC110  (the engine does it)
                await asyncio.sleep(0.05)
            while networks is not None and len(await self.networks(label)) > networks:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def sweep(self) -> None:
        """Remove all that carries this lab's name."""
        for label in (RUN, *_OURS):
            await _all(container.delete(force=True, v=True) for container in await self.containers(label))
        for label in (RUN, *_OURS):
            await _all(network.delete() for network in await self.networks(label))
            volumes = await self.docker.volumes.list(filters={"label": [f"{label}={self.name}"]})
            await _all(self._remove_volume(volume["Name"]) for volume in volumes["Volumes"] or ())
        await _all([self.docker.images.delete(self.image, force=True)])

    async def _remove_volume(self, name: str) -> None:
        await (await self.docker.volumes.get(name)).delete()


@asynccontextmanager
async def lab(bench: Bench) -> AsyncIterator[Lab]:
    """The engine of this machine with an image to start; NotAvailableError where there is none."""
    url = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    docker = Docker(url)
    try:
        bench.report.machine["docker engine"] = await _version(docker, url)
        # The name of a deployment: short, and a letter first.
        name = f"b{secrets.token_hex(4)}"
        one = Lab(docker, url, name, image=f"mlhub-bench:{name}", pool=await _free_pool(docker))
        bench.folder.mkdir(parents=True, exist_ok=True)
        try:
            await build(docker, one.image, labels=one.labels, folder=bench.folder)
            yield one
        finally:
            await one.sweep()
    finally:
        await docker.close()


async def _version(docker: Docker, url: str) -> str:
    try:
        async with asyncio.timeout(10):
            return str((await docker.version())["Version"])
    except (DockerError, aiohttp.ClientError, OSError, TimeoutError) as error:
        raise NotAvailableError(f"no Docker engine answers at {url} ({type(error).__name__})") from None


async def _free_pool(docker: Docker) -> IPv4Network:
    taken = [*_routes()]
    for network in await docker.networks.list():
        configs = (network.get("IPAM") or {}).get("Config") or ()
        taken += [IPv4Network(one["Subnet"]) for one in configs if ":" not in one.get("Subnet", ":")]
    free = [
        pool
        for pool in IPv4Network("10.128.0.0/9").subnets(new_prefix=16)
        if not any(pool.overlaps(network) for network in taken)
    ]
    # By chance, so that two benches on one machine hardly ever choose the same.
    return secrets.choice(free)


def _routes() -> Iterator[IPv4Network]:
    """Where this host sends packets to, but for the default route."""
    path = Path("/proc/net/route")
    for line in path.read_text().splitlines()[1:] if path.exists() else ():
        fields = line.split()
        target, mask = (IPv4Address(struct.pack("=I", int(fields[column], 16))) for column in (1, 7))
        if int(mask):
            yield IPv4Network(f"{target}/{mask}", strict=False)


async def _all(removals: Iterable[Awaitable[object]]) -> None:
    """Try each; what has gone meanwhile is gone."""
    for result in await asyncio.gather(*removals, return_exceptions=True):
        if isinstance(result, BaseException) and not (isinstance(result, DockerError) and result.status in {404, 409}):
            raise result
