"""The users' networks: one bridge for each user, with a small subnet of its own out of the pool.

A network is made for the first workspace of its user and goes after the last one. Its name and the name of its bridge
follow from hub and user, so that two who make it at the same time can't make two; its labels say whose it is. All
work on one user's network is done under one lock.

Names begin with `zz`: an engine that knows no priorities gives a container its default route and its published ports
on the first of its networks by name, and the proxy's must stay where they are when it joins.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import structlog
from aiodocker.networks import DockerNetwork

from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.errors import MLHubError, Temporary
from mlhub_shared.tasks import end_tasks
from mlhub_spawner_worker.backends.base import BackendError
from mlhub_spawner_worker.backends.docker import labels
from mlhub_spawner_worker.backends.docker.configuration import ReachSettings
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.errors import Missing, translated
from mlhub_spawner_worker.backends.docker.events import EngineEvent
from mlhub_spawner_worker.backends.docker.firewall import Firewall
from mlhub_spawner_worker.backends.docker.legs import JOINING, UserNetwork, make_legs
from mlhub_spawner_worker.backends.docker.place import NetworkPlace
from mlhub_spawner_worker.backends.docker.subnets import Subnets, gateway, room
from mlhub_spawner_worker.firewall import bridge_name

log = structlog.get_logger(__name__)

LINGER = timedelta(seconds=2)
"""A network without workspaces stays that long: a restart needs it again at once."""

REMOVALS = 8
"""How often a network is tried to be removed that somebody else holds on to."""

JOINS = 4
"""How many networks a service that comes up is joined to at the same time."""


def network_name(hub: str, user: str) -> str:
    """The name of that user's network; no two users share one, in no two deployments."""
    return f"zz-{WorkspaceId(hub=hub, user=user).name}"


class UserNetworks:
    """Implements Networks: one bridge for each user."""

    def __init__(
        self, engine: Engine, hub: str, settings: ReachSettings, *, engine_url: str, linger: timedelta = LINGER
    ) -> None:
        self._engine, self._hub, self._linger = engine, hub, linger
        self._subnets = Subnets(settings.network_pool, settings.network_size)
        self._legs = make_legs(engine, hub, settings)
        self._firewall = Firewall(engine, hub, settings, engine_url=engine_url)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._known: dict[str, UserNetwork] = {}
        self._held: set[str] = set()
        """Users with a workspace, or one about to be made."""
        self._making: set[IPv4Network] = set()
        self._foreign: set[IPv4Network] = set()
        """What the engine refused, or others use."""
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._to_remove: set[str] = set()
        """To be looked at once more when the removal under way has ended."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._was_connected = False
        self._joining = 0
        """Grows with every call to join services to all networks; only the last one goes on."""

    @property
    def caveat(self) -> str:
        """What people must know of the isolation of workspaces; empty when all is as it should be."""
        return self._firewall.caveat

    async def open(self) -> None:
        """Set the firewall, see which networks are there, join who belongs on them, and remove those of nobody."""
        self._engine.events.on_event(self._seen)
        self._engine.events.on_connected(self._connected)
        await self._legs.open()
        await self._firewall.apply()
        await self._look()
        for user in set(self._known) - await self._users():
            self._remove_later(user)
        self._spawn(self._firewall.keep())

    async def aclose(self) -> None:
        """Let go; networks stay, and the rules as long as there is one."""
        await end_tasks(*self._tasks, *self._removals.values())
        with suppress(MLHubError):
            if not await self._list():
                await self._firewall.remove()

    async def attach(self, user: str) -> NetworkPlace:
        """A network of this user with room for one container more, with everybody on it who belongs there."""
        self._firewall.require()
        self._held.add(user)
        async with self._locks[user]:
            network, present = await self._ensure(user)
            kept = self._legs.kept(network)
            most = room(network.subnet) - len(kept)
            if sum(address not in kept for address in present.values()) >= most:
                raise BackendError(
                    f"The network of {user} is full: no more than {most} workspaces can run on it at the same time. "
                    "Stop another one first."
                )
            await self._legs.join(network, present)
            return self._legs.place(network)

    async def released(self, user: str) -> None:
        """The network goes in a moment, unless a workspace of this user is attached before that."""
        self._held.discard(user)
        self._remove_later(user)

    # Making

    async def _ensure(self, user: str) -> tuple[UserNetwork, dict[str, IPv4Address | None]]:
        """The user's network, and the containers that run on it: their ids and addresses."""
        network = self._known.get(user) or await self._find(user)
        for _ in range(2):
            network = network or await self._make(user)
            try:
                shown = json.loads(await self._engine.read(f"networks/{network.id}"))
            except Missing:
                # Somebody has removed it, as `docker network prune` does.
                network = None
                continue
            self._known[user] = network
            return network, {name: _address_of(one) for name, one in (shown["Containers"] or {}).items()}
        raise Temporary(f"the network of {user} vanishes as soon as it is made")

    async def _make(self, user: str) -> UserNetwork:
        for _ in range(self._subnets.count):
            subnet = await self._next_subnet()
            self._making.add(subnet)
            try:
                self._known[user] = network = await self._create(user, subnet)
                return network
            except BackendError as error:
                if found := await self._find(user):
                    return found
                if "overlap" not in str(error).lower():
                    raise
                self._foreign.add(subnet)
            finally:
                self._making.discard(subnet)
        raise self._used_up()

    async def _next_subnet(self) -> IPv4Network:
        own = {network.subnet for network in self._known.values()}
        subnet = self._subnets.first_free(self._making | self._foreign | own)
        if subnet is not None:
            return subnet
        # What was in others' use may be free again.
        await self._look()
        own = {network.subnet for network in self._known.values()}
        subnet = self._subnets.first_free(self._making | self._foreign | own)
        if subnet is None:
            raise self._used_up()
        return subnet

    def _used_up(self) -> BackendError:
        return BackendError(
            f"All {self._subnets.count} networks of the pool {self._subnets.pool} are in use. An administrator can "
            "give this node a larger pool."
        )

    async def _create(self, user: str, subnet: IPv4Network) -> UserNetwork:
        name = network_name(self._hub, user)
        config = {
            "Name": name,
            "CheckDuplicate": True,
            "Driver": "bridge",
            "EnableIPv6": False,
            "Labels": labels.of_user(self._hub, user),
            "IPAM": {"Config": [{"Subnet": str(subnet), "Gateway": str(gateway(subnet))}]},
            "Options": {
                "com.docker.network.bridge.name": bridge_name(self._hub, user),
                "com.docker.network.bridge.enable_icc": "true",
            },
        }
        with translated(f"make the network of {user}"):
            made = await self._engine.docker.networks.create(config)
        log.info("docker.network_made", user=user, network=name, subnet=str(subnet))
        return UserNetwork(made.id, name, user, subnet)

    # Seeing

    async def _find(self, user: str) -> UserNetwork | None:
        return next((network for network in await self._list(user) if network.user == user), None)

    async def _list(self, user: str | None = None) -> list[UserNetwork]:
        """This deployment's networks, of one user or of all."""
        wanted = {labels.ORIGIN: self._hub} | ({labels.USER: user} if user is not None else {})
        listed = json.loads(await self._engine.read("networks", filters=labels.filters(**wanted)))
        return [network for one in listed if (network := _user_network(one)) is not None]

    async def _look(self) -> None:
        """Learn all networks of the engine anew, our own and others'."""
        listed = json.loads(await self._engine.read("networks"))
        ours: dict[str, UserNetwork] = {}
        foreign: set[IPv4Network] = set()
        for one in listed:
            network = _user_network(one)
            if network and one["Labels"].get(labels.ORIGIN) == self._hub:
                ours[network.user] = network
            else:
                foreign.update(_subnets_of(one))
        self._known, self._foreign = ours, foreign

    async def _users(self) -> set[str]:
        """Everybody who has a container here, running or not, or is about to get one."""
        wanted = labels.filters(**{labels.ORIGIN: self._hub})
        listed = json.loads(await self._engine.read("containers/json", all="true", filters=wanted))
        # The first ML Hub's containers, which carry no generation, are on none of these networks.
        found = (one["Labels"] for one in listed if labels.GENERATION in one["Labels"])
        return {str(carried.get(labels.USER)) for carried in found} | self._held

    # Removing

    def _remove_later(self, user: str) -> None:
        if user in self._removals:
            # The one under way may have looked already, and seen a container.
            self._to_remove.add(user)
            return
        self._removals[user] = task = asyncio.ensure_future(self._remove(user))
        task.add_done_callback(lambda done: self._removed(user, done))

    def _removed(self, user: str, task: "asyncio.Task[None]") -> None:
        del self._removals[user]
        self._ended(task)
        if user in self._to_remove and not task.cancelled():
            self._to_remove.discard(user)
            self._remove_later(user)

    async def _remove(self, user: str) -> None:
        await asyncio.sleep(self._linger.total_seconds())
        backoff = Backoff(first=0.2, most=10)
        for _ in range(REMOVALS):
            try:
                async with self._locks[user]:
                    if user in self._held or user in await self._users():
                        return
                    for network in await self._list(user):
                        await self._take_down(network)
                    self._known.pop(user, None)
            except MLHubError as error:
                log.info("docker.network_busy", user=user, why=str(error))
                await backoff.sleep()
            else:
                return
        log.warning("docker.network_stays", user=user, network=network_name(self._hub, user))

    async def _take_down(self, network: UserNetwork) -> None:
        await self._legs.leave(network)
        with suppress(Missing), translated(f"remove the network of {network.user}"):
            await DockerNetwork(self._engine.docker, network.id).delete()
        log.info("docker.network_removed", user=network.user, network=network.name)

    # Following the engine

    def _seen(self, event: EngineEvent) -> None:
        if event.labels.get(labels.DEPLOYMENT) == self._hub and event.labels.get(labels.SERVICE) in JOINING:
            self._legs.forget()
            if event.action == "start":
                self._join_soon()

    async def _connected(self) -> None:
        self._legs.forget()
        self._join_soon()
        if self._was_connected:
            # The engine, or all of its host, may have been started anew.
            self._firewall.renew()
        self._was_connected = True

    def _join_soon(self) -> None:
        self._joining += 1
        self._spawn(self._join_all(self._joining))

    async def _join_all(self, turn: int) -> None:
        """Join services to every network there is, and try again those where that fails."""
        backoff, left = Backoff(first=0.5, most=30), None
        while turn == self._joining:
            try:
                await self._look()
                failed = await self._join_each(left if left is not None else set(self._known), turn)
            except MLHubError as error:
                log.warning("docker.not_joined", why=str(error))
            else:
                if not failed:
                    return
                log.warning("docker.not_joined", users=sorted(failed), why=next(iter(failed.values())))
                left = set(failed)
            await backoff.sleep()

    async def _join_each(self, users: set[str], turn: int) -> dict[str, str]:
        """A few at a time. Returns whose networks could not be joined, and why."""
        few, failed = asyncio.Semaphore(JOINS), {}

        async def join(user: str) -> None:
            async with few, self._locks[user]:
                network = self._known.get(user)
                if network is None or turn != self._joining:
                    return
                try:
                    await self._legs.join(network)
                except MLHubError as error:
                    failed[user] = str(error)

        await asyncio.gather(*(join(user) for user in users))
        return failed

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("docker.networks_task_failed", why=f"{type(error).__name__}: {error}")


def _user_network(listed: dict[str, Any]) -> UserNetwork | None:
    """A network as the engine lists it; None if it is nobody's, or one of the first ML Hub's, which no rule guards."""
    carried = listed.get("Labels") or {}
    user, subnets = carried.get(labels.USER), _subnets_of(listed)
    if user is None or labels.ORIGIN not in carried or labels.SERVER in carried or not subnets:
        return None
    return UserNetwork(str(listed["Id"]), str(listed["Name"]), str(user), subnets[0])


def _address_of(endpoint: dict[str, Any]) -> IPv4Address | None:
    text = str(endpoint.get("IPv4Address") or "").partition("/")[0]
    return IPv4Address(text) if text else None


def _subnets_of(listed: dict[str, Any]) -> list[IPv4Network]:
    found = [one.get("Subnet", "") for one in (listed.get("IPAM") or {}).get("Config") or []]
    return [IPv4Network(text, strict=False) for text in found if text and ":" not in text]
