"""Which ports of a workspace are seen, and where they are reached, on every backend that has any."""

import asyncio
import contextlib
import shlex
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import Endpoint, Phase, WorkspaceSecrets
from mlhub_shared.errors import NotFound, Permanent, Temporary
from mlhub_shared.runtime import hosts
from mlhub_spawner_worker.backends.base import Backend, Job
from mlhub_spawner_worker.backends.docker import DockerBackend, ReachSettings
from mlhub_spawner_worker.backends.docker.configuration import Reach
from mlhub_spawner_worker.backends.process import ProcessBackend, ProcessSettings
from mlhub_spawner_worker.entry import Child, EntryError, Link, Listener, Loopback, Order, What
from mlhub_spawner_worker.entry.contract import LOCALHOST, Arrived, Caller
from mlhub_spawner_worker.ports import WorkspacePorts
from mlhub_spawner_worker.relays import ProxyAddresses, Relays
from tests.support.attach_places import BARE_IMAGE, PYTHON_IMAGE, engine_problem
from tests.support.docker_engine import deployment, docker_backend, new_hub, profile
from tests.support.makers import NEWEST, record
from tests.support.openssh import execute
from tests.support.ports import free_port
from tests.support.scripted_backend import ScriptedBackend
from tests.support.scripted_names import ScriptedNames
from tests.support.waiting import until, until_async
from tests.support.workers import FAKE_SERVER

HUB = new_hub()
EVERYWHERE = "0.0.0.0"  # noqa: S104  (for the programs of the test's own workspaces)
SLEEP = ("sh", "-c", "exec sleep 600")
LISTEN = """
import socket, sys
kept = []
for where in sys.argv[1:]:
    host, _, port = where.rpartition("/")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, int(port)), family=family)
    kept.append(listener)
    print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(b"hello " + connection.recv(100))
    connection.close()
"""


class Deaf:
    """A client that takes what it is told."""

    def __init__(self) -> None:
        self.said = b""

    def write(self, data: bytes, *, is_error: bool = False) -> None:
        self.said += data

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


@dataclass
class Site:
    """A backend, and what a worker makes of it."""

    backend: Backend
    ports: WorkspacePorts
    has_own_loopback: bool
    started: list[Child] = field(default_factory=list)

    async def start(self, user: str = "alice") -> str:
        """A workspace that runs."""
        workspace = WorkspaceId(hub=HUB, user=user)
        value = record(user, phase=Phase.PREPARING, node="n1").model_copy(update={"workspace": workspace})
        job = Job(value, WorkspaceSecrets(generation=value.generation))
        await self.backend.prepare(job, _report)
        await self.backend.start(job)
        return workspace.name

    async def listen(self, name: str, *where: str) -> list[int]:
        """A program of the workspace that listens there; answers on the last one."""
        return await self.run(name, f"exec python3 -c {shlex.quote(LISTEN)} {' '.join(where)}", lines=len(where))

    async def run(self, name: str, line: str, *, lines: int) -> list[int]:
        """The numbers that a program says first."""
        entry = self.backend.session(name)
        assert entry is not None
        client = Deaf()
        child = await entry.run(Order(What.COMMAND, line), client)
        child.resume_reading()
        self.started.append(child)
        await until(lambda: client.said.count(b"\n") >= lines)
        return [int(number) for number in client.said.split()]


async def _report(_: int, __: str) -> None:
    pass


@contextlib.asynccontextmanager
async def watched(backend: Backend, *, own: bool, idle: float = 60) -> AsyncIterator[Site]:
    await backend.open()
    proxy = ProxyAddresses("http://127.0.0.1:1/")
    ports = WorkspacePorts(backend, Relays("127.0.0.1", proxy, backend.wait, idle=timedelta(seconds=idle)))
    site = Site(backend, ports, own)
    try:
        yield site
    finally:
        await ports.aclose()
        for child in site.started:
            child.close()
        for found in await backend.inventory():
            await backend.stop(found.record.name, grace=timedelta(0), up_to=NEWEST)
        await backend.aclose()


@contextlib.asynccontextmanager
async def process(folder: Path) -> AsyncIterator[Site]:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    backend = ProcessBackend(ProcessSettings(data_dir=folder, command=FAKE_SERVER.split(), environment=environment))
    async with watched(backend, own=False) as site:
        yield site


@contextlib.asynccontextmanager
async def docker(
    folder: Path, image: str = PYTHON_IMAGE, idle: float = 60, reach: Reach = "host"
) -> AsyncIterator[Site]:
    if (problem := engine_problem(image)) is not None:
        pytest.skip(problem)
    async with deployment(HUB):
        wanted = profile(image=image, command=SLEEP, home="/tmp")
        backend = docker_backend(folder, HUB, profiles=(wanted,), reach=ReachSettings(reach=reach))
        async with watched(backend, own=True, idle=idle) as site:
            yield site


Make = Callable[[Path], contextlib.AbstractAsyncContextManager[Site]]
SITES: list[Make] = [process, docker]


@pytest.fixture(params=SITES, ids=lambda make: make.__name__)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    async with request.param(tmp_path) as site:
        yield site


@pytest.fixture
async def containers(tmp_path: Path) -> AsyncIterator[Site]:
    async with docker(tmp_path) as site:
        yield site


async def asked(endpoint: Endpoint) -> bytes:
    """What is answered there."""
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    try:
        writer.write(b"proxy")
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()


async def test_ports_are_listed_and_answer_where_the_proxy_is_sent(site: Site) -> None:
    name = await site.start()
    assert await site.ports.listed(name) == []
    ports = [free_port(), free_port()]
    for address, port in zip((EVERYWHERE, "127.0.0.1"), ports, strict=True):
        await site.listen(name, f"{address}/{port}")
    await until_async(lambda: lists(site, name, ports))
    assert [one.program for one in await site.ports.listed(name)] == ["python3"] * 2
    for port in ports:
        endpoint = await site.ports.open(name, port)
        assert await asked(endpoint) == b"hello proxy"
        assert await site.ports.open(name, port) == endpoint, "the same one as long as it is used"


async def test_what_has_just_begun_to_listen_can_be_opened_though_it_was_not_listed(site: Site) -> None:
    name, port = await site.start(), free_port()
    with pytest.raises(NotFound, match=f"nothing listens on port {port} of this workspace"):
        await site.ports.open(name, port)
    await site.listen(name, f"127.0.0.1/{port}")
    await asyncio.sleep(0.35)  # the least that a look is good for
    assert await asked(await site.ports.open(name, port)) == b"hello proxy"


async def test_ports_of_others_are_never_a_workspaces_own(site: Site) -> None:
    alice, bob = await site.start(), await site.start("bob")
    port, hidden = free_port(), free_port()
    await site.listen(bob, f"127.0.0.1/{port}")
    with socket.create_server(("127.0.0.1", hidden)), pytest.raises(NotFound):
        await site.ports.open(alice, hidden)
    with pytest.raises(NotFound):
        await site.ports.open(alice, port)
    assert await site.ports.listed(alice) == []
    with pytest.raises(NotFound):
        await site.ports.open(WorkspaceId(hub=HUB, user="nobody").name, port)


async def test_what_programs_use_among_themselves_is_not_listed_but_can_be_opened(site: Site) -> None:
    name, port = await site.start(), free_port()
    internal, _ = await site.listen(name, "127.0.0.1/0", f"{EVERYWHERE}/{port}")
    await until_async(lambda: lists(site, name, [port]))
    assert (await site.ports.open(name, internal)).port > 0


async def test_a_workspaces_own_port_is_not_among_them(site: Site) -> None:
    name = await site.start()
    if site.has_own_loopback:
        await site.listen(name, f"{EVERYWHERE}/8888")
    own = next(found.running.endpoint.port for found in await site.backend.inventory() if found.running)
    assert await site.ports.listed(name) == []
    with pytest.raises(NotFound):
        await site.ports.open(name, own)


async def test_many_who_ask_at_once_share_one_look() -> None:
    async with watched(scripted := ScriptedBackend(), own=True) as site:
        name = await site.start()
        await asyncio.gather(*(site.ports.listed(name) for _ in range(50)))
        assert scripted.calls["listening", name] == 1


async def test_another_program_on_the_same_port_of_the_loopback_is_never_dialled(tmp_path: Path) -> None:
    async with process(tmp_path) as site:
        name, port = await site.start(), free_port()
        with socket.create_server(("127.0.0.1", port)):
            await site.listen(name, f"::1/{port}")
            assert (await site.ports.open(name, port)).host == "::1"


async def test_a_containers_own_address_is_preferred_and_its_loopback_is_relayed(containers: Site) -> None:
    name = await containers.start()
    running = (await containers.backend.inventory())[0].running
    assert running is not None
    await containers.listen(name, f"{EVERYWHERE}/7001", "127.0.0.1/7002")
    assert (await containers.ports.open(name, 7001)).host == running.endpoint.host
    assert (await containers.ports.open(name, 7002)).host == "127.0.0.1"


async def test_a_proxy_on_another_host_is_always_sent_to_the_worker(tmp_path: Path) -> None:
    async with docker(tmp_path, reach="published") as site:
        name = await site.start()
        await site.listen(name, f"{EVERYWHERE}/7001")
        endpoint = await site.ports.open(name, 7001)
        assert endpoint.host == "127.0.0.1"
        assert await asked(endpoint) == b"hello proxy"


async def test_after_a_restart_nothing_of_before_is_told(site: Site) -> None:
    name, port = await site.start(), free_port()
    await site.listen(name, f"127.0.0.1/{port}")
    await site.ports.open(name, port)
    entry = site.backend.session(name)
    assert entry == site.backend.session(name)
    await site.backend.stop(name, grace=timedelta(0), up_to=NEWEST)
    with pytest.raises(NotFound, match="not running"):
        await site.ports.open(name, port)
    await site.start()
    assert entry != site.backend.session(name)
    assert await site.ports.listed(name) == []
    with pytest.raises(NotFound):
        await site.ports.open(name, port)


async def test_a_relay_ends_with_its_workspace_and_what_goes_through_it(containers: Site) -> None:
    name = await containers.start()
    await containers.listen(name, "127.0.0.1/7003")
    endpoint = await containers.ports.open(name, 7003)
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    await containers.backend.stop(name, grace=timedelta(0), up_to=NEWEST)
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()
    await until(lambda: is_closed(endpoint))


async def test_a_relay_that_nobody_uses_closes(tmp_path: Path) -> None:
    async with docker(tmp_path, idle=0.5) as site:
        name = await site.start()
        await site.listen(name, "127.0.0.1/7004")
        endpoint = await site.ports.open(name, 7004)
        assert await asked(endpoint) == b"hello proxy"
        await until(lambda: is_closed(endpoint))
        again = await site.ports.open(name, 7004)
        assert again.port != endpoint.port
        assert await asked(again) == b"hello proxy"


async def test_a_relay_takes_connections_of_the_proxy_alone(containers: Site) -> None:
    name = await containers.start()
    await containers.listen(name, "127.0.0.1/7005")
    entry = containers.backend.session(name)
    assert entry is not None
    assert entry.loopback is not None
    relays = Relays("127.0.0.1", ProxyAddresses("http://192.0.2.1:8003"), containers.backend.wait)
    try:
        endpoint = await relays.open(name, 7005, entry.loopback)
        with pytest.raises(OSError, match=r"not connected|reset"):
            await asked(endpoint)
    finally:
        await relays.aclose()


async def test_the_proxy_is_where_its_name_leads_and_in_the_networks_that_are_named() -> None:
    found = await ProxyAddresses("http://localhost:8003", ("10.0.0.0/30",)).now()
    assert {IPv4Network("127.0.0.1/32"), IPv4Network("10.0.0.0/30")} <= found
    with pytest.raises(Temporary, match="no-such-host"):
        await ProxyAddresses("http://no-such-host.invalid:8003").now()


async def test_relays_follow_the_names_of_those_who_may_use_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "EVERY", 0.05)
    names = ScriptedNames(proxies=["192.0.2.1", "192.0.2.2"], more=[])
    proxy = ProxyAddresses("http://proxies:8003", ("10.0.0.0/30", "more"), names)
    async with process(tmp_path) as site:
        name = await site.start()
        relays = Relays("127.0.0.1", proxy, site.backend.wait)
        try:
            nowhere = Nowhere()
            endpoint = await relays.open(name, 7005, nowhere)
            assert [proxy.admits(peer) for peer in ("192.0.2.2", "10.0.0.3", "192.0.2.3")] == [True, True, False]
            with pytest.raises(OSError, match=r"not connected|reset"):
                await asked(endpoint)
            assert not nowhere.asked
            names["more"] = ["127.0.0.1"]

            async def is_let_in() -> bool:
                with contextlib.suppress(OSError):
                    await asked(endpoint)
                return nowhere.asked

            await until_async(is_let_in)
        finally:
            await relays.aclose()


class Nowhere(Loopback):
    """A loopback on which nobody listens."""

    asked = False

    async def connect(self, port: int, caller: Caller, *, host: str = LOCALHOST) -> Link:
        self.asked = True
        raise EntryError("nobody listens")

    async def listen(self, port: int, arrived: Arrived) -> Listener:
        raise NotImplementedError


async def test_an_image_without_python_says_what_its_loopback_lacks(tmp_path: Path) -> None:
    async with docker(tmp_path, BARE_IMAGE) as site:
        assert isinstance(site.backend, DockerBackend)
        name = await site.start()
        async with listener_of(name, "127.0.0.1/7006"):
            await until_async(lambda: lists(site, name, [7006]))
            with pytest.raises(Permanent, match="needs python3"):
                await site.ports.open(name, 7006)


@contextlib.asynccontextmanager
async def listener_of(name: str, where: str) -> AsyncIterator[None]:
    """A program that listens there in a workspace whose image has none: in another container of its network."""
    # Not for ever: it outlives its network, and this test if that is killed.
    program = ("timeout", "300", "python3", "-c", LISTEN, where)
    command = ("docker", "run", "--rm", "--detach", "--network", f"container:{name}", PYTHON_IMAGE, *program)
    ran = await execute(*command)
    assert ran.status == 0, ran.stderr
    try:
        yield
    finally:
        await execute("docker", "rm", "--force", ran.stdout.decode().strip())


async def lists(site: Site, name: str, ports: list[int]) -> bool:
    return [one.port for one in await site.ports.listed(name)] == sorted(ports)


def is_closed(endpoint: Endpoint) -> bool:
    """Found out without a connection, which would be a use."""
    with contextlib.suppress(OSError), socket.create_server((endpoint.host, endpoint.port)):
        return True
    return False
