"""How much one user may have at once, and how often he may come."""

import asyncio
import contextlib
import time

import asyncssh
import pytest

from mlhub_shared.contracts.workspace import Phase
from tests.ssh_gateway.place import Place
from tests.support.waiting import until


async def test_a_connection_has_so_many_channels_and_no_more(place: Place) -> None:
    alice = await place.client("alice")
    held = set()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.add(writer)
        await reader.read()
        writer.close()
        await writer.wait_closed()
        held.discard(writer)

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, place.connect("alice", alice.key) as connection:
        opened = [await connection.open_connection("localhost", port) for _ in range(64)]
        with pytest.raises(asyncssh.ChannelOpenError, match="64 channels of this connection are open already"):
            await connection.open_connection("localhost", port)
        with pytest.raises(asyncssh.ChannelOpenError, match="64 channels of this connection are open already"):
            await connection.run("echo in")
        for _, writer in opened[:2]:
            writer.close()
            await writer.wait_closed()
        assert (await connection.run("echo in")).stdout == "in\n"
        connection.close()
        await until(lambda: not held)


async def test_what_comes_before_there_is_a_program_stays_with_the_client(place: Place) -> None:
    alice = await place.client("alice")
    await place.put("alice", phase=Phase.STARTING)
    async with place.connect("alice", alice.key) as connection:
        process = await connection.create_process("cat", encoding=None)
        process.stdin.write(bytes(2_000_000))
        process.stdin.write_eof()
        await asyncio.sleep(1)
        assert process.channel.get_write_buffer_size() >= 1_700_000
        await place.put("alice")
        async with asyncio.timeout(30):
            assert len(await process.stdout.read()) == 2_000_000


async def test_a_user_has_so_many_connections_and_no_more(quiet_place: Place) -> None:
    place = quiet_place
    await place.put("alice")
    await place.put("bob")
    alice, bob = await place.client("alice"), await place.client("bob")
    async with place.gateway(max_connections=2), contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(place.connect("alice", alice.key))
        await stack.enter_async_context(place.connect("alice", alice.key))
        ran = await alice.run("alice", "echo in")
        assert ran.status == 255
        assert "2 connections of yours are open already" in ran.stderr
        assert (await bob.run("bob", "echo in")).stdout == b"in\n"
        first.close()
        await first.wait_closed()
        assert (await alice.run("alice", "echo in")).stdout == b"in\n"


async def test_a_user_who_logs_in_too_often_waits_for_his_turn(quiet_place: Place) -> None:
    await quiet_place.put("alice")
    alice = await quiet_place.client("alice")
    async with quiet_place.gateway(logins_per_second=1):
        began = time.monotonic()
        for _ in range(4):
            async with quiet_place.connect("alice", alice.key):
                pass
        assert time.monotonic() - began > 2.5
