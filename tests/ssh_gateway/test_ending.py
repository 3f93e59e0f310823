"""Open sessions: told to everybody, and ended when they are not to go on."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.queries import END_SESSION, EndSession
from mlhub_shared.contracts.services import OpenSession, ssh_key_key
from mlhub_shared.errors import Permanent
from tests.conftest import bus_settings
from tests.ssh_gateway.place import Place, end, read_until
from tests.support.hub_api import ScriptedHub
from tests.support.makers import workspace
from tests.support.openssh import OpenSsh
from tests.support.waiting import until

SOON = 5.0
"""Seconds in which a session whose right is withdrawn must have ended."""


@asynccontextmanager
async def inside(client: OpenSsh, login: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Somebody who is in."""
    process = await client.start(login, "echo on; exec cat")
    try:
        assert process.stdout is not None
        await read_until(process.stdout, b"on\n")
        yield process
    finally:
        await end(process)


async def ends(process: asyncio.subprocess.Process) -> str:
    """What a session is told at its end, which must come soon."""
    started = time.monotonic()
    _, stderr = await asyncio.wait_for(process.communicate(), 20)
    assert time.monotonic() - started < SOON
    assert process.returncode == 255
    return stderr.decode()


async def goes_on(process: asyncio.subprocess.Process) -> bool:
    """Whether somebody is still in after the time in which he would be put out."""
    assert process.stdin is not None
    assert process.stdout is not None
    await asyncio.sleep(SOON)
    process.stdin.write(b"still here\n")
    await read_until(process.stdout, b"still here\n")
    return True


async def test_a_key_that_is_taken_away_ends_its_sessions_and_no_others(place: Place) -> None:
    alice = await place.client("alice")
    other = OpenSsh(place.folder / "other", place.settings.listen_port)
    await place.register("alice", other.key)
    async with inside(alice, "alice") as lost, inside(other, "alice") as kept:
        await place.bus.ssh_keys.delete(ssh_key_key(alice.key.get_fingerprint()))
        assert "this key does not log in any more" in await ends(lost)
        assert await goes_on(kept)
    closed = (await place.events(EventKind.SESSION_CLOSED))[0]
    assert closed.detail["ended_by"] == "service:ssh-gateway"


async def test_a_key_that_comes_back_at_once_ends_nothing(place: Place) -> None:
    alice = await place.client("alice")
    key = ssh_key_key(alice.key.get_fingerprint())
    known = await place.bus.ssh_keys.get(key)
    assert known is not None
    async with inside(alice, "alice") as process:
        # However it meets the gateway's rounds.
        for _ in range(6):
            await place.bus.ssh_keys.delete(key)
            await asyncio.sleep(0.5)
            await place.bus.ssh_keys.put(key, known.value)
            await asyncio.sleep(0.5)
        assert await goes_on(process)


async def test_a_lost_store_that_the_hub_fills_again_ends_nothing(place: Place) -> None:
    alice = await place.client("alice")
    async with inside(alice, "alice") as process:
        await place.nats_server.kill()
        shutil.rmtree(place.nats_server.folder / "store")
        await place.nats_server.start()
        new = await Bus.open(bus_settings(place.nats_server))
        try:
            table = new.start_table(new.ssh_keys)
            await table.synced()
            assert len(table) == 0
            await asyncio.sleep(3)
            await place.put("alice")
            await place.register("alice", alice.key)
            assert await goes_on(process)
        finally:
            await new.close()


async def test_a_token_that_is_revoked_ends_its_sessions(place: Place, hub: ScriptedHub) -> None:
    hub.add_token("for-now", "alice", "access:servers!user=alice")
    hub.add_token("for-ever", "alice", "access:servers!user=alice")
    async with place.connect("alice", password="for-now") as lost, place.connect("alice", password="for-ever") as kept:
        del hub.tokens["for-now"]
        await asyncio.wait_for(lost.wait_closed(), SOON)
        assert (await kept.run("echo in")).stdout == "in\n"


async def test_a_token_that_loses_its_scope_ends_its_sessions(place: Place, hub: ScriptedHub) -> None:
    hub.add_token("shrinking", "automation", "access:servers", kind="service")
    async with place.connect("alice", password="shrinking") as lost:
        hub.add_token("shrinking", "automation", "read:users", kind="service")
        await asyncio.wait_for(lost.wait_closed(), SOON)


async def test_an_admin_who_is_one_no_more_and_a_share_that_is_withdrawn(place: Place, hub: ScriptedHub) -> None:
    hub.shares["bob", "alice", ""] = ["access:servers!server=alice/"]
    root, bob, alice = [await place.client(name) for name in ("root", "bob", "alice")]
    async with inside(root, "alice") as former, inside(bob, "alice") as guest, inside(alice, "alice") as owner:
        hub.users["root"]["admin"] = False
        assert "you may not enter any more" in await ends(former)
        hub.shares.clear()
        assert "you may not enter any more" in await ends(guest)
        assert await goes_on(owner)


async def test_a_hub_that_is_away_ends_nothing(place: Place, hub: ScriptedHub) -> None:
    root = await place.client("root")
    async with inside(root, "alice") as process:
        hub.is_down = True
        assert await goes_on(process)
        hub.is_down = False
        hub.users.pop("root")
        assert "you may not enter any more" in await ends(process)


async def test_a_forwarded_port_ends_too(place: Place, hub: ScriptedHub) -> None:
    hub.add_token("for-now", "alice", "access:servers!user=alice")

    async def stay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    async with await asyncio.start_server(stay, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with place.connect("alice", password="for-now") as lost:
            reader, _ = await lost.open_connection("localhost", port)
            del hub.tokens["for-now"]
            assert await asyncio.wait_for(reader.read(), SOON) == b""


async def test_open_sessions_are_told_and_taken_away(quiet_place: Place) -> None:
    place = quiet_place
    await place.put("alice")
    alice = await place.client("alice")
    table = place.bus.start_table(place.bus.sessions)
    async with place.gateway(replica="gateway-7"), inside(alice, "alice"):
        await until(lambda: len(table) == 1)
        (told,) = table.values()
        assert told == OpenSession(
            id=told.id,
            gateway="gateway-7",
            requester="user:alice",
            workspace=workspace("alice"),
            client="127.0.0.1",
            method="key",
            fingerprint=alice.key.get_fingerprint(),
            opened_at=told.opened_at,
            bytes_out=told.bytes_out,
        )
        assert (await place.events(EventKind.SESSION_OPENED))[0].correlation_id == told.id
    await until(lambda: len(table) == 0)


async def test_a_store_that_was_lost_is_told_again(place: Place) -> None:
    table = place.bus.start_table(place.bus.sessions)
    async with inside(await place.client("alice"), "alice"):
        await until(lambda: len(table) == 1)
        await place.bus.sessions.delete(table.values()[0].id)
        await until(lambda: len(table) == 0)
        await place.nats_server.kill()
        await place.nats_server.start()
        await until(lambda: len(table) == 1)


async def test_a_session_is_ended_on_request_with_the_name_of_who_did(quiet_place: Place) -> None:
    place = quiet_place
    await place.put("alice")
    alice = await place.client("alice")
    table = place.bus.start_table(place.bus.sessions)
    async with place.gateway(replica="gateway-7"), inside(alice, "alice") as lost, inside(alice, "alice") as kept:
        await until(lambda: len(table) == 2)
        first = min(table.values(), key=lambda session: session.opened_at)
        query = EndSession(id=first.id, requester="user:root", correlation_id="c")
        ended = await place.bus.ask(END_SESSION, query, OpenSession, node="gateway-7")
        assert ended.id == first.id
        assert "root ended this session" in await ends(lost)
        with pytest.raises(Permanent, match="ended already"):
            await place.bus.ask(END_SESSION, query, OpenSession, node="gateway-7")
        closed = (await place.events(EventKind.SESSION_CLOSED))[0]
        assert (closed.correlation_id, closed.detail["ended_by"]) == (first.id, "user:root")
        assert kept.returncode is None
