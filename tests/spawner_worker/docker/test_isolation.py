"""Workspaces among themselves, towards their host and towards the world, seen from inside real containers."""

import asyncio
import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

import pytest
import structlog

from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends.docker.errand import DEFAULT_IMAGE
from mlhub_spawner_worker.backends.docker.firewall import shares_network
from mlhub_spawner_worker.backends.docker.networks import UserNetworks
from mlhub_spawner_worker.backends.docker.subnets import gateway
from mlhub_spawner_worker.firewall import missing, remove
from tests.support.docker_engine import ENGINE_URL, PORT, engine_answers
from tests.support.docker_networks import (
    LISTENER,
    Deployment,
    address_of,
    deployed,
    dial,
    inside,
)
from tests.support.waiting import until, until_async

pytestmark = [
    pytest.mark.skipif(not engine_answers(), reason=f"no Docker engine answers at {ENGINE_URL}"),
    pytest.mark.skipif(
        os.geteuid() != 0 or not shares_network(ENGINE_URL) or not shutil.which("iptables"),
        reason="only root beside the Docker engine, with iptables, sees its firewall",
    ),
]

EVERYWHERE = "0.0.0.0"  # noqa: S104  (that it is not reached there is what is tested)
EXPOSED: dict[str, dict[str, str]] = {f"{PORT}/tcp": {}}


@pytest.fixture
async def deployment() -> AsyncIterator[Deployment]:
    async with deployed(reach="host", firewall=True) as deployment:
        yield deployment


@dataclass(frozen=True)
class Outside:
    """A machine beyond this one, in truth a network namespace."""

    name: str
    address: str
    host: str
    """Our own address towards it."""

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        """Start something on it."""
        line = ["ip", "netns", "exec", self.name, *command]
        return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def dials(self, address: str, port: int) -> bool:
        """Whether it gets a word from there."""
        script = f"exec 3<>/dev/tcp/{address}/{port} && grep -q . <&3"
        line = ["ip", "netns", "exec", self.name, "timeout", "2", "bash", "-c", script]
        return subprocess.run(line, capture_output=True, timeout=10, check=False).returncode == 0


@pytest.fixture
def outside() -> Iterator[Outside]:
    """A machine with a listener on PORT, beyond a link of its own."""
    if not shutil.which("ip"):
        pytest.skip("no `ip` to make a network namespace with")
    name = f"mlt{random.randrange(10**8):08d}"
    net = f"198.{random.choice((18, 19))}.{random.randrange(256)}"
    beyond = Outside(name, f"{net}.2", f"{net}.1")
    try:
        for line in (
            f"ip netns add {name}",
            f"ip link add {name} type veth peer name far netns {name}",
            f"ip addr add {beyond.host}/24 dev {name}",
            f"ip link set {name} up",
            f"ip -n {name} link set lo up",
            f"ip -n {name} addr add {beyond.address}/24 dev far",
            f"ip -n {name} link set far up",
            f"ip -n {name} route add default via {beyond.host}",
        ):
            subprocess.run(line.split(), check=True, capture_output=True, timeout=10)
        listening = beyond.start(*LISTENER, str(PORT), "outside")
        yield beyond
        listening.kill()
        listening.wait()
    finally:
        for line in (f"ip link del {name}", f"ip netns del {name}"):
            subprocess.run(line.split(), check=False, capture_output=True, timeout=10)


async def configure(*lines: str) -> None:
    """Run commands that change this machine's network."""
    for line in lines:
        await asyncio.to_thread(subprocess.run, line.split(), check=True, capture_output=True, timeout=10)


@dataclass(frozen=True)
class HostListener:
    """A service of the host on all its addresses."""

    port: int
    met: list[str]


@contextlib.asynccontextmanager
async def listening_host() -> AsyncIterator[HostListener]:
    met: list[str] = []

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(writer.get_extra_info("peername")[0])
        writer.write(b"host")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, EVERYWHERE, 0) as server:
        yield HostListener(server.sockets[0].getsockname()[1], met)


@pytest.fixture
async def host() -> AsyncIterator[HostListener]:
    async with listening_host() as host:
        yield host


async def host_addresses(deployment: Deployment) -> set[str]:
    """Addresses of this machine that no other test takes away: towards the world, and on the default bridge."""
    bridge = await (await deployment.docker.networks.get("bridge")).show()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as towards:
        # Sends nothing, but finds the way.
        towards.connect(("203.0.113.1", 9))
        return {towards.getsockname()[0], str(gateway(IPv4Network(bridge["IPAM"]["Config"][0]["Subnet"])))}


async def test_users_meet_only_their_own(deployment: Deployment) -> None:
    async with deployment.opened() as networks:
        alice, bob = await networks.attach("alice"), await networks.attach("bob")
        one = await deployment.workspace("alice", alice, name=f"{deployment.hub}-one")
        two = await deployment.workspace("alice", alice, name=f"{deployment.hub}-two")
        other = await deployment.workspace("bob", bob, name=f"{deployment.hub}-other")
        at = await address_of(one, alice.network)
        assert await dial(two, at) == await dial(two, f"{deployment.hub}-one") == f"{deployment.hub}-one"
        assert await dial(one, f"{deployment.hub}-two") == f"{deployment.hub}-two"
        assert await dial(other, at) is None
        assert await dial(other, f"{deployment.hub}-one") is None
        assert await dial(one, await address_of(other, bob.network)) is None


async def reached_addresses(networks: UserNetworks, deployment: Deployment, port: int) -> tuple[set[str], set[str]]:
    """The addresses of the host at which a workspace was answered on that port, and all that it tried."""
    alice, bob = await networks.attach("alice"), await networks.attach("bob")
    container = await deployment.workspace("alice", alice)
    tried = {alice.gateway, bob.gateway, *await host_addresses(deployment)}
    answers = await asyncio.gather(*(dial(container, address, port) for address in tried))
    return {address for address, answer in zip(tried, answers, strict=True) if answer}, tried


async def test_without_a_firewall_the_host_is_open(deployment: Deployment, host: HostListener) -> None:
    async with deployment.opened(firewall=False) as networks:
        reached, tried = await reached_addresses(networks, deployment, host.port)
        assert reached == tried
        assert "can reach the services of their host" in networks.caveat


@pytest.mark.parametrize("way", ["process", "container"])
async def test_the_host_is_closed_but_for_the_api(deployment: Deployment, host: HostListener, way: str) -> None:
    if way == "container":
        await _need_image(deployment)
    async with listening_host() as api:
        # An engine at another place is never beside the worker.
        url = ENGINE_URL if way == "process" else "tcp://elsewhere"
        async with deployment.opened(engine_url=url, api_port=api.port) as networks:
            assert networks.caveat == ""
            reached, tried = await reached_addresses(networks, deployment, host.port)
            assert reached == set()
            assert host.met == []
            assert len(tried) == 4
            assert await reached_addresses(networks, deployment, api.port) == (tried, tried)
            # The host, where the proxy runs, reaches them.
            place = await networks.attach("bob")
            container = await deployment.workspace("bob", place, name=f"{deployment.hub}-bob")
            address = await address_of(container, place.network)
            assert await asyncio.to_thread(_read, address, PORT) == f"{deployment.hub}-bob"


async def test_a_published_port_of_somebody_else_is_closed(deployment: Deployment, outside: Outside) -> None:
    ports = {f"{PORT}/tcp": [{"HostIp": EVERYWHERE, "HostPort": ""}]}
    command = [*LISTENER, str(PORT), "published"]
    other = await deployment.plain(command, {"PortBindings": ports}, ExposedPorts=EXPOSED)
    port = int((await other.show())["NetworkSettings"]["Ports"][f"{PORT}/tcp"][0]["HostPort"])
    await asyncio.to_thread(_until_dialled, outside, outside.host, port)
    async with deployment.opened() as networks:
        reached, _ = await reached_addresses(networks, deployment, port)
        assert reached == set()


async def test_the_world_stays_open_and_a_cloud_s_secrets_closed(deployment: Deployment, outside: Outside) -> None:
    secret = f"169.254.{random.randrange(1, 255)}.{random.randrange(1, 255)}"
    closed = outside.address.removesuffix(".2") + ".3"
    await configure(
        f"ip -n {outside.name} addr add {closed}/24 dev far",
        f"ip -n {outside.name} addr add {secret}/32 dev lo",
        # Gone with the link.
        f"ip route add {secret}/32 via {outside.address}",
    )
    names = outside.start(sys.executable, "-c", _NAME_SERVER, "10.9.8.7")
    try:
        async with deployment.opened(closed_to=(closed,)) as networks:
            place = await networks.attach("alice")
            # Its name server is beyond the host, as that of a company is.
            container = await deployment.workspace("alice", place, host={"Dns": [outside.address]})
            assert await dial(container, outside.address) == "outside"
            _, answer = await inside(container, "getent ahostsv4 anything.example")
            assert answer.split()[0] == "10.9.8.7"
            assert await dial(container, secret) is None
            assert await dial(container, closed) is None
            await asyncio.to_thread(remove, deployment.hub)
            assert await dial(container, secret) == await dial(container, closed) == "outside"
    finally:
        names.kill()
        names.wait()


async def test_no_moment_is_open_while_the_engine_makes_networks(deployment: Deployment, outside: Outside) -> None:
    async with deployment.opened(closed_to=(outside.address,)) as networks:
        container = await deployment.workspace("alice", await networks.attach("alice"))
        dialling = asyncio.ensure_future(inside(container, f"perl -e '{_DIAL_ON}' {outside.address} {PORT} 5"))
        for number in range(12):
            await networks.attach(f"user{number}")
        assert not dialling.done()
        code, said = await dialling
        assert (code, said.split()[0]) == (0, "0"), said
        assert int(said.split()[2]) > 100


async def test_published_ports_are_for_the_proxy_alone(deployment: Deployment, outside: Outside) -> None:
    stranger = outside.address.removesuffix(".2") + ".3"
    api = outside.start(*LISTENER, "8002", "api")
    published: dict[str, Any] = {
        "reach": "published",
        "publish_address": outside.host,
        "publish_to": (outside.address,),
        "proxy_address": outside.address,
    }
    try:
        async with deployment.opened(**published) as networks:
            place, theirs = await networks.attach("alice"), await networks.attach("bob")
            ports = {f"{PORT}/tcp": [{"HostIp": place.publish_on, "HostPort": ""}]}
            workspace = await deployment.workspace("alice", place, host={"PortBindings": ports}, ExposedPorts=EXPOSED)
            at = await address_of(workspace, place.network)
            port = int((await workspace.show())["NetworkSettings"]["Ports"][f"{PORT}/tcp"][0]["HostPort"])
            await asyncio.to_thread(_until_dialled, outside, outside.host, port)
            # Neither round the published port, nor from another machine, nor by another user.
            assert not await asyncio.to_thread(outside.dials, at, PORT)
            other = await deployment.workspace("bob", theirs)
            assert await dial(other, outside.host, port) is None
            # The machine of the proxy is as closed as our own, but for the hub's API.
            assert await dial(workspace, "mlhub", 8002) == "api"
            assert await dial(workspace, "mlhub", PORT) is None
            far = f"ip -n {outside.name}"
            await configure(f"{far} addr flush dev far", f"{far} addr add {stranger}/24 dev far")
            await configure(f"{far} route add default via {outside.host}")
            assert not await asyncio.to_thread(outside.dials, at, PORT)
            assert not await asyncio.to_thread(outside.dials, outside.host, port)
    finally:
        api.kill()
        api.wait()


async def test_rules_come_back_and_go_with_the_last_network(deployment: Deployment) -> None:
    async with deployment.opened() as networks:
        deployment.engine.events.start()
        await asyncio.wait_for(deployment.engine.events.connected.wait(), 10)
        await networks.attach("alice")
        assert missing(deployment.hub) == []
        # Somebody reloads the rules of the host, and the engine comes back.
        await asyncio.to_thread(remove, deployment.hub)
        assert missing(deployment.hub) != []
        await deployment.engine.events.aclose()
        deployment.engine.events.start()
        await until(lambda: missing(deployment.hub) == [])
    assert missing(deployment.hub) == []
    async with deployment.opened() as networks:

        async def is_swept() -> bool:
            return not await deployment.own_networks()

        await until_async(is_swept)
    assert missing(deployment.hub) != []


async def test_who_can_set_no_firewall_says_so_once(deployment: Deployment) -> None:
    with structlog.testing.capture_logs() as logs:
        async with deployment.opened(engine_url="tcp://elsewhere", firewall_image="no-such-image-anywhere") as networks:
            assert networks.caveat == "No firewall could be set: workspaces can reach the services of their host."
            await networks.attach("alice")
            # It has been tried again by now.
            await asyncio.sleep(3)
    warnings = [line for line in logs if line["event"] == "docker.no_firewall"]
    assert len(warnings) == 1
    assert warnings[0]["log_level"] == "warning"


async def test_no_port_is_published_before_the_firewall_is_in_force(deployment: Deployment) -> None:
    await _need_image(deployment)
    late = f"{deployment.hub}-firewall"
    published: dict[str, Any] = {
        "reach": "published",
        "publish_address": "127.0.0.1",
        "publish_to": ("192.0.2.9",),
        "proxy_address": "192.0.2.9",
    }
    async with deployment.opened(firewall=False, **published) as networks:
        # Whoever wants none has been told.
        assert "whoever reaches this node" in networks.caveat
        await networks.attach("alice")
    async with deployment.opened(engine_url="tcp://elsewhere", firewall_image=late, **published) as networks:
        assert "whoever reaches this node" in networks.caveat
        with pytest.raises(Temporary, match="firewall of this node is not in force"):
            await networks.attach("alice")
        await deployment.docker.images.tag(DEFAULT_IMAGE, repo=late)
        try:
            await until(lambda: not networks.caveat)
            assert missing(deployment.hub) == []
            await networks.attach("alice")
        finally:
            await deployment.docker.images.delete(late)


async def _need_image(deployment: Deployment) -> None:
    if not await deployment.has_image(DEFAULT_IMAGE):
        pytest.skip(f"the image {DEFAULT_IMAGE} is not built (make images)")


def _read(address: str, port: int) -> str:
    with socket.create_connection((address, port), timeout=5) as connection:
        return connection.recv(100).decode()


def _until_dialled(outside: Outside, address: str, port: int) -> None:
    assert any(outside.dials(address, port) for _ in range(10))


_DIAL_ON = (
    "use IO::Socket::INET; my ($host, $port, $seconds) = @ARGV; my $end = time + $seconds; my @all;"
    "while (time < $end) { push @all, IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port, Blocking => 0);"
    "shift @all if @all > 400; $dialled++; select undef, undef, undef, 0.005;"
    "$met += grep { $_ && $_->connected } @all if $dialled % 50 == 0 }"
    'printf "%d of %d\\n", $met, $dialled'
)
"""Opens connections for some seconds; prints how many came about."""

_NAME_SERVER = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 53))
while True:
    asked, who = server.recvfrom(512)
    end = asked.index(b"\\0", 12) + 5
    answer = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\1\\0\\4" + socket.inet_aton(sys.argv[1])
    is_ipv4 = asked[end - 4 : end - 2] == b"\\0\\1"
    counts = b"\\0\\1\\0\\1\\0\\0\\0\\0" if is_ipv4 else b"\\0\\1\\0\\0\\0\\0\\0\\0"
    server.sendto(asked[:2] + b"\\x81\\x80" + counts + asked[12:end] + (answer if is_ipv4 else b""), who)
"""
