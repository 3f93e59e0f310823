"""Users' networks on a real engine: a deployment of the test's own, and containers that look around in them."""

import asyncio
import contextlib
import ipaddress
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from ipaddress import IPv4Network
from typing import Any

import aiodocker
import pytest
from aiodocker.containers import DockerContainer

from mlhub_spawner_worker.backends.docker import labels
from mlhub_spawner_worker.backends.docker.configuration import ReachSettings
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.networks import UserNetworks
from mlhub_spawner_worker.firewall import FirewallError, remove
from tests.support.docker_engine import ENGINE_URL, PORT, engine_answers, new_hub
from tests.support.waiting import until_async

IMAGE = "debian:bookworm-slim"
"""Has a shell that can dial (bash) and something that can listen (perl)."""

LINGER = timedelta(milliseconds=200)

_LISTEN = (
    "use IO::Socket::INET; $s = IO::Socket::INET->new(Listen => 9, LocalPort => $ARGV[0], ReuseAddr => 1) or die $!;"
    "$SIG{TERM} = sub { exit }; while (1) { $c = $s->accept or next; print $c $ARGV[1]; close $c }"
)
LISTENER = ["perl", "-e", _LISTEN]
"""A command: answers on the port of its first argument with its second."""

WAITER = ["perl", "-e", "$SIG{TERM} = sub { exit }; sleep 1 while 1"]


async def free_pool(docker: aiodocker.Docker, *, prefix: int = 22) -> IPv4Network:
    """Addresses that no network of the engine has, chosen by chance: other tests run beside this one."""
    listed = await docker.networks.list()
    configured = [one.get("Subnet", "") for network in listed for one in network["IPAM"]["Config"] or []]
    taken = [IPv4Network(text) for text in configured if text and ":" not in text]
    while True:
        start = f"10.{random.randint(100, 199)}.{random.randrange(256)}.0"
        pool = ipaddress.ip_network(f"{start}/{prefix}", strict=False)
        if isinstance(pool, IPv4Network) and not any(pool.overlaps(network) for network in taken):
            return pool


@dataclass
class Deployment:
    """A hub's networks, and everything that the test made around them."""

    hub: str
    engine: Engine
    settings: ReachSettings

    @property
    def docker(self) -> aiodocker.Docker:
        """The engine's client."""
        return self.engine.docker

    def networks(self, *, engine_url: str = ENGINE_URL, **changes: Any) -> UserNetworks:
        """The users' networks, not open; those of one more worker each time."""
        settings = replace(self.settings, **changes)
        return UserNetworks(self.engine, self.hub, settings, engine_url=engine_url, linger=LINGER)

    @contextlib.asynccontextmanager
    async def opened(self, **changes: Any) -> AsyncIterator[UserNetworks]:
        """The users' networks at work."""
        networks = self.networks(**changes)
        await networks.open()
        try:
            yield networks
        finally:
            await networks.aclose()

    async def service(self, name: str, *, network: str = "bridge", start: bool = True) -> DockerContainer:
        """A container of the deployment itself."""
        carried = {labels.SERVICE: name, labels.DEPLOYMENT: self.hub}
        return await self._container(carried, {"NetworkMode": network}, WAITER, start=start)

    async def workspace(
        self, user: str, place: Any, *, name: str | None = None, host: dict[str, Any] | None = None, **config: Any
    ) -> DockerContainer:
        """A workspace's container on its network, which answers with its own name."""
        name = name or f"{self.hub}-{uuid.uuid4().hex[:6]}"
        carried = labels.of_user(self.hub, user) | {labels.SERVER: "", labels.GENERATION: "1"}
        limits = {"NetworkMode": place.network, "ExtraHosts": list(place.extra_hosts), "CapDrop": ["ALL"]}
        command = [*LISTENER, str(PORT), name]
        container = await self._container(carried, limits | (host or {}), command, name=name, **config)
        # Who is not reached later is then not merely late.
        await until_async(lambda: _answers(container))
        return container

    async def plain(self, command: list[str], host: dict[str, Any], **config: Any) -> DockerContainer:
        """A container that is nobody's workspace."""
        return await self._container({"mlhub.test": self.hub}, host, command, **config)

    async def _container(
        self,
        carried: dict[str, str],
        host: dict[str, Any],
        command: list[str],
        *,
        name: str | None = None,
        start: bool = True,
        **config: Any,
    ) -> DockerContainer:
        body: dict[str, Any] = {
            "Image": IMAGE,
            "Cmd": command,
            "Labels": carried | {"mlhub.test": self.hub},
            "HostConfig": host,
        }
        container = await self.docker.containers.create(body | config, name=name)
        if start:
            await container.start()
        return container

    async def has_image(self, name: str) -> bool:
        """Whether the engine has that image."""
        try:
            await self.docker.images.inspect(name)
        except aiodocker.DockerError:
            return False
        return True

    async def own_networks(self) -> list[dict[str, Any]]:
        """The deployment's networks as the engine lists them."""
        return list(await self.docker.networks.list(filters={"label": f"{labels.ORIGIN}={self.hub}"}))

    async def clean(self) -> None:
        """Remove all that carries this hub's name."""
        # The engine counts any of several labels of one filter as all of them: three lists, not one.
        for label in (f"mlhub.test={self.hub}", f"{labels.ORIGIN}={self.hub}", f"{labels.DEPLOYMENT}={self.hub}"):
            for container in await self.docker.containers.list(all=True, filters=f'{{"label":["{label}"]}}'):
                with contextlib.suppress(aiodocker.DockerError):
                    await container.delete(force=True)
        for label in (f"mlhub.test={self.hub}", f"{labels.ORIGIN}={self.hub}"):
            for one in await self.docker.networks.list(filters={"label": label}):
                with contextlib.suppress(aiodocker.DockerError):
                    await (await self.docker.networks.get(one["Id"])).delete()
        with contextlib.suppress(FirewallError):
            await asyncio.to_thread(remove, self.hub)


@contextlib.asynccontextmanager
async def deployed(**settings: Any) -> AsyncIterator[Deployment]:
    """A deployment with a name and addresses of its own; all of it is gone afterwards."""
    if not engine_answers():
        pytest.skip(f"no Docker engine answers at {ENGINE_URL}")
    hub = new_hub()
    engine = Engine(ENGINE_URL, hub)
    await engine.open()
    pool = await free_pool(engine.docker)
    deployment = Deployment(hub, engine, ReachSettings(network_pool=pool, **({"firewall": False} | settings)))
    try:
        if not await deployment.has_image(IMAGE):
            pytest.skip(f"the Docker engine has no image {IMAGE}")
        yield deployment
    finally:
        await deployment.clean()
        await engine.aclose()


def addresses(shown: dict[str, Any], network: str) -> str:
    """A container's address on a network, as inspected."""
    return str(shown["NetworkSettings"]["Networks"][network]["IPAddress"])


async def address_of(container: DockerContainer, network: str) -> str:
    """Its address on that network."""
    return addresses(await container.show(), network)


async def networks_of(container: DockerContainer) -> set[str]:
    """The names of the networks it is on."""
    return set((await container.show())["NetworkSettings"]["Networks"])


async def inside(container: DockerContainer, script: str) -> tuple[int, str]:
    """The exit code and the output of a shell script within a container."""
    execution = await container.exec(["bash", "-c", script], stdout=True, stderr=True)
    said = b""
    async with execution.start(detach=False) as stream:
        while (message := await stream.read_out()) is not None:
            said += message.data
    return int((await execution.inspect())["ExitCode"]), said.decode()


async def _answers(container: DockerContainer) -> bool:
    return await dial(container, "127.0.0.1") is not None


async def dial(container: DockerContainer, host: str, port: int = PORT) -> str | None:
    """What a listener says to a container that dials it; None if it is not reached."""
    code, said = await inside(container, f"timeout 2 bash -c 'exec 3<>/dev/tcp/{host}/{port} && cat <&3' 2>/dev/null")
    return said if code == 0 and said else None
