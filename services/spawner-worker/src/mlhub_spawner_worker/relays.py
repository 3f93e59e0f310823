"""Ports of workspaces that only they themselves reach, opened to the proxy: each by a listener of this worker."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_network
from urllib.parse import urlsplit

import structlog

from mlhub_shared.contracts.workspace import Endpoint
from mlhub_shared.errors import Permanent, Temporary
from mlhub_shared.runtime.hosts import Callers, Lookup, Network, lookup
from mlhub_shared.tasks import end_tasks
from mlhub_spawner_worker.entry import EntryError, Joint, Loopback

log = structlog.get_logger(__name__)

IDLE = timedelta(seconds=60)
"""A relay without a connection closes then, and its port rests as long: nobody may remember it as somebody else's."""

_MOST = 32
"""Relays of one workspace; a further one takes the place of one that nobody uses."""
_MOST_CONNECTIONS = 64
"""Of one relay: half of what one workspace carries at the same time, so that one port leaves room for the others."""
_TRIES = 50
_SECONDS_TO_RESOLVE = 2

Wait = Callable[[str], Awaitable[object]]
"""Returns when the workspace of this name runs no more."""


class ProxyAddresses:
    """From where relays take connections: where the proxies' probe frontends are, and other networks and hosts."""

    def __init__(self, probe_url: str, places: tuple[str, ...] = (), lookup: Lookup = lookup) -> None:
        self._host = urlsplit(probe_url).hostname or ""
        self._proxy = Callers([_place(self._host)], lookup)
        self._others = Callers(map(_place, places), lookup)

    async def now(self) -> frozenset[Network]:
        """As names mean it now; Temporary if that can't be known."""
        await asyncio.gather(self._proxy.look(), self._others.look())
        if not self._proxy.networks:
            raise Temporary(f"the address of {self._host} is not known now")
        return self._proxy.networks | self._others.networks

    async def follow(self) -> None:
        """Look again and again where they are, until cancelled."""
        await asyncio.gather(self._proxy.follow(), self._others.follow())

    def admits(self, peer: str) -> bool:
        """As names meant it when they were looked at last. Empty: it has gone already."""
        return self._proxy.admits(peer) or self._others.admits(peer)


@dataclass
class _Relay:
    """One port of one workspace, listened on."""

    name: str
    port: int
    endpoint: Endpoint
    server: asyncio.Server
    used_at: float
    connections: dict[Joint, asyncio.Task[None]] = field(default_factory=dict)

    @property
    def is_idle(self) -> bool:
        return not self.connections


class Relays:
    """The relays of this worker; nothing of them outlives it."""

    def __init__(self, host: str, proxy: ProxyAddresses, wait: Wait, *, idle: timedelta = IDLE) -> None:
        """Listens on any port of `host`."""
        self._host, self._proxy, self._wait, self._idle = host, proxy, wait, idle.total_seconds()
        self._relays: dict[tuple[str, int], _Relay] = {}
        self._opening = asyncio.Lock()
        self._resting: dict[int, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._following: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    async def open(self, name: str, port: int, loopback: Loopback) -> Endpoint:
        """Where the proxy reaches a port of a workspace's loopback, for as long as it is used or asked for again."""
        await self._proxy.now()
        if self._following is None:
            self._following = asyncio.ensure_future(self._proxy.follow())
            self._tasks.add(self._following)
        async with self._opening:
            relay = self._relays.get((name, port))
            if relay is None:
                self._make_room(name)
                relay = await self._open(name, port, loopback)
            relay.used_at = self._loop.time()
            return relay.endpoint

    async def aclose(self) -> None:
        """Close them all, and what goes through them."""
        await end_tasks(*self._tasks)

    async def _open(self, name: str, port: int, loopback: Loopback) -> _Relay:
        server, endpoint = await self._listen(lambda: Joint(lambda joint: self._arrived(relay, joint, loopback)))
        relay = _Relay(name, port, endpoint, server, self._loop.time())
        await server.start_serving()
        self._relays[name, port] = relay
        task = asyncio.ensure_future(self._keep(relay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        log.info("relay.opened", workspace=name, port=port, at=endpoint.port)
        return relay

    async def _listen(self, factory: Callable[[], Joint]) -> tuple[asyncio.Server, Endpoint]:
        host = await self._address()
        now = self._loop.time()
        self._resting = {port: until for port, until in self._resting.items() if until > now}
        for _ in range(_TRIES):
            server = await self._loop.create_server(factory, host, 0, start_serving=False)
            port: int = server.sockets[0].getsockname()[1]
            if port not in self._resting:
                return server, Endpoint(host=host, port=port)
            server.close()
        raise Temporary("no port is free for a relay now")

    async def _address(self) -> str:
        try:
            async with asyncio.timeout(_SECONDS_TO_RESOLVE):
                return str(next(iter(await lookup(self._host))))
        except OSError as error:
            raise Temporary(f"the address of {self._host} is not known now") from error

    def _make_room(self, name: str) -> None:
        own = [relay for relay in self._relays.values() if relay.name == name]
        if len(own) < _MOST:
            return
        idle = sorted((relay for relay in own if relay.is_idle), key=lambda relay: relay.used_at)
        if not idle:
            raise Permanent(f"{_MOST} ports of this workspace's loopback are in use, and no more can be at once")
        self._close(idle[0])

    async def _keep(self, relay: _Relay) -> None:
        """Until it has been idle for long, or its workspace ends."""
        stopped = asyncio.ensure_future(_waited(self._wait, relay.name))
        try:
            while not stopped.done() and relay.server.is_serving():
                left = self._idle if relay.connections else relay.used_at + self._idle - self._loop.time()
                if left <= 0:
                    break
                await asyncio.wait([stopped], timeout=left)
        finally:
            self._close(relay)
            await end_tasks(stopped, *relay.connections.values())

    def _close(self, relay: _Relay) -> None:
        if self._relays.get((relay.name, relay.port)) is relay:
            del self._relays[relay.name, relay.port]
            self._resting[relay.endpoint.port] = self._loop.time() + self._idle
        relay.server.close()

    def _arrived(self, relay: _Relay, joint: Joint, loopback: Loopback) -> None:
        if not self._proxy.admits(joint.peer):
            log.warning("relay.refused", workspace=relay.name, peer=joint.peer)
            joint.abort()
            return
        if len(relay.connections) >= _MOST_CONNECTIONS:
            joint.abort()
            return
        relay.connections[joint] = asyncio.ensure_future(self._carry(relay, joint, loopback))

    async def _carry(self, relay: _Relay, joint: Joint, loopback: Loopback) -> None:
        try:
            await joint.join(lambda caller: loopback.connect(relay.port, caller))
        except EntryError as error:
            log.info("relay.not_reached", workspace=relay.name, port=relay.port, why=str(error))
        finally:
            del relay.connections[joint]
            relay.used_at = self._loop.time()


async def _waited(wait: Wait, name: str) -> None:
    await wait(name)


def _place(text: str) -> Network | str:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return text
