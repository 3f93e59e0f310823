"""Who else is on a user's network, so that workspaces are reached and find the hub: the legs of the deployment in it.

`services`: the containers of proxy and SSH gateway join every network; found by labels, and joined again when they
start. `self`: the worker's own container does, which runs all services. `host` and `published`: nobody needs to;
workspaces find the proxy by a line in their hosts file.

Only these containers are ever joined: hub and worker reach workspaces through the proxy.
"""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Protocol

import structlog
from aiodocker.networks import DockerNetwork

from mlhub_spawner_worker.backends.base import BackendError
from mlhub_spawner_worker.backends.docker import labels
from mlhub_spawner_worker.backends.docker.configuration import ReachSettings
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.errors import Missing, translated
from mlhub_spawner_worker.backends.docker.forwarding import close_forwarding
from mlhub_spawner_worker.backends.docker.own_container import own_container
from mlhub_spawner_worker.backends.docker.place import NetworkPlace
from mlhub_spawner_worker.backends.docker.subnets import from_the_end, gateway

log = structlog.get_logger(__name__)

_ADDRESS_TAKEN = ("already in use", "already allocated")
"""How engines say that an address is somebody else's."""

ALIAS = "mlhub"
"""The proxy's name for workspaces."""

PROXY = "proxy"
JOINING = (PROXY, "ssh-gateway")
"""Services that talk to workspaces themselves, in the order of their addresses."""


@dataclass(frozen=True)
class UserNetwork:
    """A user's network as the engine has it."""

    id: str
    name: str
    user: str
    subnet: IPv4Network


@dataclass(frozen=True)
class Member:
    """A container that belongs on every user's network."""

    id: str
    runs: bool
    place: int
    """Where it is in `JOINING`."""
    networks: frozenset[str]
    """Names and ids of those it is on, or will be on once it is started."""

    @property
    def has_alias(self) -> bool:
        """It is what workspaces look for."""
        return JOINING[self.place] == PROXY

    def names(self, network: UserNetwork) -> bool:
        """Whether that network is among its own."""
        return not self.networks.isdisjoint((network.id, network.name))


class Legs(Protocol):
    """What one kind of reach needs on a network."""

    async def open(self) -> None:
        """Find out what can be found out only now; BackendError if this reach is impossible here."""

    def place(self, network: UserNetwork) -> NetworkPlace:
        """How a workspace is put on the network."""

    def kept(self, network: UserNetwork) -> frozenset[IPv4Address]:
        """Addresses of the network that no workspace needs to have: of those who will join it, there or not."""

    async def join(self, network: UserNetwork, present: Iterable[str] = ()) -> None:
        """Put everybody on the network who belongs there and is not `present` (ids of containers)."""

    async def leave(self, network: UserNetwork) -> None:
        """Take everybody off it, also who does not run: who names a network that is gone can't start any more."""

    def forget(self) -> None:
        """What was known of containers may be wrong now."""


class NoLegs:
    """Implements Legs: the proxy is on this host, or on another one."""

    def __init__(self, settings: ReachSettings) -> None:
        self._settings = settings

    async def open(self) -> None:
        """An address is needed where containers have none that the proxy could reach."""
        settings = self._settings
        needed = (settings.publish_address, settings.proxy_address, settings.publish_to or not settings.firewall)
        if settings.reach == "published" and not all(needed):
            raise BackendError(
                "reach `published` needs the address to publish on, the address of the proxy, and from where published "
                "ports may be used"
            )

    def place(self, network: UserNetwork) -> NetworkPlace:
        """With a line that says where the proxy is."""
        host = str(gateway(network.subnet))
        if self._settings.reach == "published":
            at = f"{ALIAS}:{self._settings.proxy_address}"
            return NetworkPlace(network.name, host, (at,), publish_on=self._settings.publish_address)
        return NetworkPlace(network.name, host, (f"{ALIAS}:{host}",))

    def kept(self, network: UserNetwork) -> frozenset[IPv4Address]:
        """None."""
        return frozenset()

    async def join(self, network: UserNetwork, present: Iterable[str] = ()) -> None:
        """Nobody joins."""

    async def leave(self, network: UserNetwork) -> None:
        """Nobody has joined."""

    def forget(self) -> None:
        """Nothing is known."""


class ContainerLegs:
    """Implements Legs: containers of this engine join each network."""

    def __init__(self, engine: Engine, hub: str, settings: ReachSettings) -> None:
        self._engine, self._hub, self._settings = engine, hub, settings
        self._own = settings.reach == "self"
        self._own_id: str | None = None
        self._known: list[Member] | None = None
        self._age = 0
        """Grows whenever what is known gets old, so that an answer that was under way is not kept."""
        self._warned = False

    async def open(self) -> None:
        """Find the worker's own container where that is the one to join, and let it pass nothing on."""
        if self._own:
            self._own_id = await own_container(self._engine)
            if self._own_id is None:
                raise BackendError("reach `self` needs a worker in a container of the Docker engine that it uses")
            await close_forwarding(self._engine, self._hub, self._own_id, image=self._settings.firewall_image)

    def place(self, network: UserNetwork) -> NetworkPlace:
        """The engine's own name service knows the alias."""
        return NetworkPlace(network.name, str(gateway(network.subnet)))

    def kept(self, network: UserNetwork) -> frozenset[IPv4Address]:
        """Those that are the same for ever."""
        joining = (PROXY,) if self._own else JOINING
        return frozenset(from_the_end(network.subnet, place) for place in range(len(joining)))

    async def join(self, network: UserNetwork, present: Iterable[str] = ()) -> None:
        """Connect those that run; one that starts later is joined then."""
        there = set(present)
        for _ in range(2):
            running = [member for member in await self._members() if member.runs and member.id not in there]
            joined = await asyncio.gather(*(self._connect(network, member) for member in running))
            if all(joined):
                return
            # A service has been made anew, and nobody has told yet.
            self.forget()

    async def leave(self, network: UserNetwork) -> None:
        """Disconnect all that name the network, as the engine sees them now."""
        self.forget()
        naming = [member for member in await self._members() if member.names(network)]
        await asyncio.gather(*(self._disconnect(network, member.id) for member in naming))

    def forget(self) -> None:
        """Ask the engine again before the next joining."""
        self._known = None
        self._age += 1

    async def _members(self) -> list[Member]:
        if self._known is not None:
            return self._known
        age = self._age
        members = await self._own_member() if self._own else await self._services()
        if age == self._age:
            self._known = members
        self._warn_if_none(members)
        return members

    async def _services(self) -> list[Member]:
        wanted = labels.filters(**{labels.DEPLOYMENT: self._hub})
        listed = json.loads(await self._engine.read("containers/json", all="true", filters=wanted))
        return [_member(shown) for shown in listed if shown["Labels"].get(labels.SERVICE) in JOINING]

    async def _own_member(self) -> list[Member]:
        shown = json.loads(await self._engine.read(f"containers/{self._own_id}/json"))
        networks = _names(shown["NetworkSettings"]["Networks"])
        return [Member(shown["Id"], runs=True, place=JOINING.index(PROXY), networks=networks)]

    def _warn_if_none(self, members: list[Member]) -> None:
        if not any(member.has_alias for member in members) and not self._warned:
            log.warning("docker.no_proxy", looked_for=f"{labels.DEPLOYMENT}={self._hub} {labels.SERVICE}={PROXY}")
            self._warned = True

    async def _connect(self, network: UserNetwork, member: Member) -> bool:
        """False if there is no such container any more."""
        # The first of a container's networks by name gives it its default route and its published ports (newer
        # engines go by priority); neither may move to a user's network. See `UserNetworks` for their names.
        endpoint: dict[str, Any] = {"Aliases": [ALIAS] if member.has_alias else [], "GwPriority": -1}
        # Always the same address, also for the container that comes in its place: workspaces keep what a name meant for
        # as long as the name service allows, which is minutes. The engine itself gives out the lowest ones first.
        address = {"IPAMConfig": {"IPv4Address": str(from_the_end(network.subnet, member.place))}}
        try:
            try:
                await self._connect_as(network, member, endpoint | address)
            except BackendError as error:
                if not any(words in str(error) for words in _ADDRESS_TAKEN):
                    raise
                await self._connect_as(network, member, endpoint)
        except BackendError as error:
            if isinstance(error, Missing) and "container" in str(error).lower():
                return False
            if "already exists in network" not in str(error):
                raise
        return True

    async def _connect_as(self, network: UserNetwork, member: Member, endpoint: dict[str, Any]) -> None:
        with translated(f"join a service to {network.name}"):
            handle = DockerNetwork(self._engine.docker, network.id)
            await handle.connect({"Container": member.id, "EndpointConfig": endpoint})

    async def _disconnect(self, network: UserNetwork, container: str) -> None:
        try:
            with translated(f"take a service off {network.name}"):
                handle = DockerNetwork(self._engine.docker, network.id)
                await handle.disconnect({"Container": container, "Force": True})
        except BackendError as error:
            if not isinstance(error, Missing) and "not connected" not in str(error):
                raise


def make_legs(engine: Engine, hub: str, settings: ReachSettings) -> Legs:
    """The legs for that kind of reach."""
    if settings.reach in ("services", "self"):
        return ContainerLegs(engine, hub, settings)
    return NoLegs(settings)


def _member(shown: dict[str, Any]) -> Member:
    return Member(
        id=shown["Id"],
        runs=shown["State"] == "running",
        place=JOINING.index(shown["Labels"][labels.SERVICE]),
        networks=_names(shown["NetworkSettings"]["Networks"]),
    )


def _names(networks: dict[str, Any]) -> frozenset[str]:
    return frozenset(networks) | frozenset(filter(None, (one.get("NetworkID") for one in networks.values())))
