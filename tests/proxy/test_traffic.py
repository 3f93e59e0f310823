"""What passes through: uploads, streams, WebSockets, and the activity they count as."""

import asyncio
import io
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial

import aiohttp

from mlhub_shared.bus import Bus, Entry
from mlhub_shared.contracts.services import Activity, ProxyState
from mlhub_shared.contracts.workspace import Endpoint, Phase
from tests.proxy.conftest import MakeBackend, applied, put, ready
from tests.proxy.stack import REPLICA, Agent, ask
from tests.support.makers import record
from tests.support.waiting import until_async

SIZE = 50 * 1024 * 1024
SOON = timedelta(seconds=20)


async def activity(bus: Bus, name: str = "ws-alice-test") -> Activity | None:
    entry = await bus.activity.get(REPLICA)
    return entry.value.workspaces.get(name) if entry else None


def serves(revision: int, entry: Entry[ProxyState] | None) -> bool:
    return entry is not None and entry.value.workspaces_revision >= revision


async def test_a_large_upload_arrives_whole(agent: Agent, bus: Bus, backend: MakeBackend) -> None:
    await applied(bus, workspaces=await put(bus, ready(await backend("alice"))))
    url = f"http://127.0.0.1:{agent.public}/user/alice/api/contents/big"

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(SIZE // 65536):
            yield bytes(65536)

    async with aiohttp.ClientSession() as session:
        async with session.put(url, data=io.BytesIO(bytes(SIZE))) as answer:
            assert (await answer.json())["size"] == SIZE
        async with session.put(url, data=pieces()) as answer:
            assert (await answer.json())["size"] == SIZE


async def test_a_stream_passes_piece_by_piece(agent: Agent, bus: Bus, backend: MakeBackend) -> None:
    alice = await backend("alice")
    await applied(bus, workspaces=await put(bus, ready(alice)))
    url = f"http://127.0.0.1:{agent.public}/user/alice/stream"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        for number in range(3):
            # The next piece is sent only after this one has come through.
            piece = await asyncio.wait_for(answer.content.readuntil(b"\n\n"), 20)
            assert piece == f"data: {number}\n\n".encode()
            alice.proceed.set()


async def test_an_open_websocket_is_activity_when_it_talks_and_not_when_it_pings(
    agent: Agent, bus: Bus, backend: MakeBackend
) -> None:
    await applied(bus, workspaces=await put(bus, ready(await backend("alice"))))
    url = f"http://127.0.0.1:{agent.public}/user/alice/ws"

    async def known() -> bool:
        seen = await activity(bus)
        return seen is not None and seen.open_connections == 1

    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        await until_async(known)  # the upgrade itself was a request
        first = await activity(bus)
        assert first is not None
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            await socket.ping()
            await asyncio.sleep(0.25)
        quiet = await activity(bus)
        assert quiet is not None
        assert quiet.last_activity == first.last_activity

        await socket.send_str("x" * 500)

        async def moved() -> bool:
            seen = await activity(bus)
            return seen is not None and seen.last_activity > first.last_activity and seen.open_connections == 1

        await until_async(moved)
    await bus.workspaces.delete(record().name)

    async def forgotten() -> bool:
        return await activity(bus) is None

    await until_async(forgotten)


async def test_probes_and_hub_pages_are_no_activity(agent: Agent, bus: Bus, backend: MakeBackend) -> None:
    await applied(bus, workspaces=await put(bus, ready(await backend("alice"))))
    for _ in range(5):
        assert (await ask(agent.probe, "/user/alice/api")).status == 200
        assert (await ask(agent.public, "/hub/home")).status == 200
        await asyncio.sleep(0.2)
    assert await activity(bus) is None


async def test_thousands_of_routes_are_brought_in_one_swap(agent: Agent, bus: Bus, backend: MakeBackend) -> None:
    alice = await backend("alice")
    await agent.kill()
    endpoint = Endpoint(host="127.0.0.1", port=alice.port)
    for start in range(0, 5000, 100):
        users = [f"u{number}" for number in range(start, start + 100)]
        await asyncio.gather(*(put(bus, record(user=u, phase=Phase.READY, endpoint=endpoint)) for u in users))
    last = await put(bus, record(user="z", phase=Phase.READY, endpoint=endpoint))
    await agent.start()
    await agent.ready()
    await applied(bus, workspaces=last)
    for user in ("u0", "u4999", "z"):
        assert (await ask(agent.public, f"/user/{user}/")).said["name"] == "alice"
    assert len((await agent.get("/routes")).json()["public"]) == 5001
    print([line for line in agent.log.read_text().splitlines() if "swapped" in line])

    replicas, spent = bus.start_table(bus.proxies), []
    for number in range(20):
        started = time.monotonic()
        revision = await put(bus, record(user=f"n{number}", phase=Phase.READY, endpoint=endpoint))
        await replicas.wait(REPLICA, partial(serves, revision), timeout=SOON)
        spent.append(time.monotonic() - started)
        assert (await ask(agent.public, f"/user/n{number}/")).said["name"] == "alice"
    print("record to published revision, ms:", [round(value * 1000, 1) for value in spent])
