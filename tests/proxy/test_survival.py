"""What goes on when the agent, HAProxy or the bus is killed."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import nats
import pytest

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.subjects import Subjects
from mlhub_shared.contracts.workspace import Phase
from tests.proxy.backend import Backend
from tests.proxy.conftest import MakeBackend, applied, put, ready
from tests.proxy.stack import Agent, ask
from tests.support.makers import record
from tests.support.nats_server import PASSWORD, USER, NatsServer
from tests.support.waiting import until, until_async

pytestmark = pytest.mark.chaos

Socket = aiohttp.ClientWebSocketResponse


@asynccontextmanager
async def websocket(agent: Agent, path: str = "/user/alice/ws") -> AsyncIterator[Socket]:
    url = f"http://127.0.0.1:{agent.public}{path}"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        yield socket


async def echoes(socket: Socket, text: str = "x") -> bool:
    await socket.send_str(text)
    return (await socket.receive_str(timeout=20)).endswith(f":{text}")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def serves(agent: Agent, path: str, name: str) -> bool:
    try:
        return bool((await ask(agent.public, path)).said["name"] == name)
    except (OSError, ValueError):
        return False


async def test_a_websocket_stays_open_over_many_route_changes(agent: Agent, bus: Bus, backend: MakeBackend) -> None:
    alice = await backend("alice")
    await applied(bus, workspaces=await put(bus, ready(alice)))
    async with websocket(agent) as socket:
        for number in range(100):
            revision = await put(bus, ready(alice, user=f"u{number}"))
        for number in range(100):
            revision = await put(bus, record(user=f"u{number}", phase=Phase.STOPPED))
            assert number % 10 or await echoes(socket)
        await applied(bus, workspaces=revision)
        assert await echoes(socket)
    assert set((await agent.get("/routes")).json()["public"]) == {"/user/alice/"}


async def test_haproxy_serves_on_when_the_agent_is_killed_and_the_next_one_adopts_it(
    agent: Agent, bus: Bus, backend: MakeBackend
) -> None:
    alice, bob = await backend("alice"), await backend("bob")
    await applied(bus, workspaces=await put(bus, ready(alice)))
    haproxy = agent.haproxy
    async with websocket(agent) as socket:
        await agent.kill()
        assert await echoes(socket)
        assert (await ask(agent.public, "/user/alice/")).said["name"] == "alice"
        await bus.workspaces.put("late", ready(bob, user="bob"))
        await bus.workspaces.delete(record().name)
        await agent.start()
        await agent.ready()
        assert agent.haproxy == haproxy
        assert await serves(agent, "/user/bob/", "bob")
        assert await serves(agent, "/user/alice/", "hub")
        assert await echoes(socket)


async def test_a_new_configuration_takes_over_without_dropping_anybody(
    agent: Agent, bus: Bus, backend: MakeBackend
) -> None:
    alice = await backend("alice")
    await applied(bus, workspaces=await put(bus, ready(alice)))
    old = agent.haproxy
    async with websocket(agent) as socket:
        await agent.kill()
        await agent.start(THREADS="1")
        await until(lambda: agent.haproxy != old)
        await agent.ready()
        assert await serves(agent, "/user/alice/", "alice")
        assert await echoes(socket)
        new = agent.haproxy
        # The end is the end for both, although the old one still has a connection open.
        await agent.stop()
        await until(lambda: not alive(old) and not alive(new), within=10)


async def test_a_configuration_that_fails_leaves_the_running_haproxy_alone(
    agent: Agent, bus: Bus, backend: MakeBackend
) -> None:
    alice = await backend("alice")
    await applied(bus, workspaces=await put(bus, ready(alice)))
    old = agent.haproxy
    await agent.kill()
    await agent.start(API_HOST="192.0.2.1")
    for _ in range(2):
        seen = agent.log.read_text().count("haproxy.not_started")
        while agent.log.read_text().count("haproxy.not_started") == seen:
            assert await serves(agent, "/user/alice/", "alice")
            await asyncio.sleep(0.05)
    await until(lambda: agent.haproxy == old)


async def test_haproxy_is_back_with_the_current_table_when_it_is_killed(
    agent: Agent, bus: Bus, backend: MakeBackend
) -> None:
    alice, bob = await backend("alice"), await backend("bob")
    await applied(bus, workspaces=await put(bus, ready(alice)))
    for _ in range(3):
        os.kill(agent.haproxy, signal.SIGKILL)
        await put(bus, ready(bob, user="bob"))
        killed = time.monotonic()
        await until_async(lambda: serves(agent, "/user/alice/", "alice"))
        print(f"back after {time.monotonic() - killed:.3f} s")
        await until_async(lambda: serves(agent, "/user/bob/", "bob"))
        await applied(bus, workspaces=await put(bus, record(user="bob", phase=Phase.STOPPED)))
        assert await serves(agent, "/user/bob/", "hub")
        await agent.ready()


async def test_routes_follow_again_after_the_bus_was_killed(
    agent: Agent, bus: Bus, nats_server: NatsServer, backend: MakeBackend
) -> None:
    alice, bob = await backend("alice"), await backend("bob")
    await put(bus, ready(alice))
    await applied(bus, workspaces=await put(bus, ready(bob, user="bob")))
    await nats_server.kill()
    assert (await ask(agent.public, "/user/alice/")).said["name"] == "alice"
    await nats_server.start()
    await bus.workspaces.delete(record().name)
    await applied(bus, workspaces=await put(bus, ready(alice, user="carol")))
    assert (await ask(agent.public, "/user/alice/")).said["name"] == "hub"
    assert (await ask(agent.public, "/user/bob/")).said["name"] == "bob"
    assert (await ask(agent.public, "/user/carol/")).said["name"] == "alice"


async def test_a_start_without_the_bus_serves_by_the_last_tables(
    agent: Agent, bus: Bus, nats_server: NatsServer, backend: MakeBackend
) -> None:
    alice = await backend("alice")
    await applied(bus, workspaces=await put(bus, ready(alice)))
    await until(lambda: "/user/alice/" in (agent.socket.parent / "public.map").read_text())
    await agent.stop()
    await nats_server.kill()
    await agent.start()
    await until_async(lambda: serves(agent, "/user/alice/", "alice"))
    assert await serves(agent, "/hub/login", "hub")
    os.kill(agent.haproxy, signal.SIGKILL)
    await until_async(lambda: serves(agent, "/user/alice/", "alice"))
    await nats_server.start()
    await bus.workspaces.delete(record().name)
    await agent.ready()
    await until_async(lambda: serves(agent, "/user/alice/", "hub"))


async def test_an_agent_that_fails_leaves_what_it_found(agent: Agent) -> None:
    haproxy = agent.haproxy
    await agent.kill()
    taken = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", agent.http)
    async with taken:
        await agent.start()
        assert agent.process is not None
        assert await asyncio.wait_for(agent.process.wait(), 30) != 0
    assert alive(haproxy)
    await agent.stop()
    await agent.start()
    await agent.ready()
    assert agent.haproxy == haproxy


async def test_an_agent_that_fails_leaves_nothing_that_it_started(
    stopped_agent: Agent, nats_server: NatsServer
) -> None:
    agent = stopped_agent
    # A bus that no service can work with: somebody else takes what is theirs.
    client = await nats.connect(nats_server.url, user=USER, password=PASSWORD)
    await client.jetstream().add_stream(name="somebody", subjects=[Subjects("test").all_commands])
    await client.close()
    # Which is not seen before the bus is there, and HAProxy serves by then.
    await nats_server.kill()
    await agent.start()
    await until(lambda: "haproxy.started" in agent.log.read_text())
    await nats_server.start()
    assert agent.process is not None
    assert await asyncio.wait_for(agent.process.wait(), 30) != 0
    assert "refuses stream" in agent.log.read_text()
    with pytest.raises(ConnectionRefusedError):
        await ask(agent.public, "/")


async def test_a_haproxy_that_hangs_is_said(agent: Agent) -> None:
    os.kill(agent.haproxy, signal.SIGSTOP)

    async def said() -> bool:
        return "counters" in (await agent.get("/ready")).json()["problems"]

    await until_async(said)
    os.kill(agent.haproxy, signal.SIGCONT)
    await agent.ready()


async def test_an_open_websocket_does_not_hold_the_end(agent: Agent, bus: Bus, backend: MakeBackend) -> None:
    alice = await backend("alice")
    await applied(bus, workspaces=await put(bus, ready(alice)))
    haproxy = agent.haproxy
    async with websocket(agent) as socket:
        assert await echoes(socket)
        await asyncio.wait_for(agent.stop(), 20)
        assert not alive(haproxy)
    assert not (agent.data_dir / "haproxy.pid").exists()
    assert await bus.proxies.get("proxy-1") is None


async def test_the_agent_ends_while_the_bus_is_away(
    stopped_agent: Agent, hub: Backend, nats_server: NatsServer
) -> None:
    await nats_server.kill()
    await stopped_agent.start()
    await until_async(lambda: serves(stopped_agent, "/", "hub"))
    haproxy = stopped_agent.haproxy
    await asyncio.wait_for(stopped_agent.stop(), 20)
    assert not alive(haproxy)


async def test_a_haproxy_that_does_not_answer_is_replaced(agent: Agent, bus: Bus, backend: MakeBackend) -> None:
    old = agent.haproxy
    await agent.kill()
    os.kill(old, signal.SIGSTOP)
    await agent.start()
    await agent.ready()
    assert agent.haproxy != old
    assert not alive(old)
    assert await serves(agent, "/", "hub")


async def test_a_taken_port_is_named_and_taken_when_it_is_free(stopped_agent: Agent) -> None:
    agent = stopped_agent
    taken = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", agent.public)
    async with taken:
        await agent.start()
        await until(lambda: "cannot bind" in agent.log.read_text() or "Address already in use" in agent.log.read_text())
        await asyncio.sleep(2)
        # Backing off: not a busy loop.
        assert agent.log.read_text().count("haproxy.not_started") < 8
        refused = await agent.get("/ready")
        assert refused.status_code == 503
        assert "haproxy" in refused.json()["problems"]
    await agent.ready()
