"""Strangers and slow ones in numbers, and what the gateway has left for everybody else."""

import asyncio
import contextlib
import ipaddress
import os
import socket
from pathlib import Path

import asyncssh
import pytest
from prometheus_client import REGISTRY

from mlhub_shared.contracts.events import EventKind
from tests.ssh_gateway.place import Place, end, read_until
from tests.ssh_gateway.test_process import start
from tests.support.openssh import execute
from tests.support.ports import free_port
from tests.support.waiting import until_async

GARBAGE = (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"SSH-2.0-x\r\n" + bytes(64), b"\xff" * 4096)
HOSTILE = (
    "\r\nroot logged in",
    "\x1b[2J\x1b]0;owned\x07",
    "../../alice",
    "al\u202eecila",
    "%s%n{}",
    "a" * 10_000,
    "--" * 400,
)


def memory(process: int) -> int:
    """Bytes that a process has in memory."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def knock(port: int, number: int, said: bytes) -> None:
    """Say something that is no SSH, and go."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, local_addr=(f"127.1.1.{number % 200 + 1}", 0)
            )
            writer.write(said)
            writer.close()
            await reader.read()


async def test_garbage_leaves_nothing_behind(quiet_place: Place) -> None:
    place = quiet_place
    await place.put("alice")
    alice = await place.client("alice")
    process = await start(place, free_port())
    try:
        await until_async(lambda: serves(place.settings.listen_port))
        client = await alice.start("alice", "echo on; cat")
        assert client.stdout is not None
        assert client.stdin is not None
        await read_until(client.stdout, b"on\n")
        await flood(place, 3000)
        before = memory(process.pid)
        await flood(place, 1500)
        assert memory(process.pid) - before < 3_000_000
        client.stdin.write(b"still here\n")
        await read_until(client.stdout, b"still here\n")
        await end(client)

        async def is_in() -> bool:
            # The last of them may still be in the waiting room.
            return (await alice.run("alice", "echo in")).stdout == b"in\n"

        await until_async(is_in)
        assert await place.count(EventKind.LOGIN_REFUSED) == 0
    finally:
        process.terminate()
        await process.wait()


async def flood(place: Place, count: int) -> None:
    """Much garbage from many addresses, none of which comes too often."""
    for first in range(0, count, 100):
        numbers = range(first, first + 100)
        await asyncio.gather(*(knock(place.settings.listen_port, n, GARBAGE[n % len(GARBAGE)]) for n in numbers))


async def test_accepting_strangers_holds_up_nobody(quiet_place: Place) -> None:
    def refused() -> float:
        return REGISTRY.get_sample_value("mlhub_ssh_connections_refused_total", {"reason": "network"}) or 0

    async with quiet_place.gateway(refused_networks=(ipaddress.ip_network("127.0.0.0/8"),)):
        before, turns = refused(), 0
        # All at once, as nothing else runs meanwhile.
        address = ("127.0.0.1", quiet_place.settings.listen_port)
        strangers = [socket.create_connection(address) for _ in range(500)]
        async with asyncio.timeout(20):
            while refused() - before < 500:
                await asyncio.sleep(0)
                turns += 1
        for stranger in strangers:
            stranger.close()
    assert turns > 250


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_login_names_are_refused_like_any_other(
    place: Place, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    alice = await place.client("alice")
    ran = await execute("ssh", *alice.options, "-p", str(alice.port), "-l", name, "127.0.0.1", "echo in", within=20)
    assert (ran.status, ran.stdout) == (255, b"")
    assert (await alice.run("alice", "echo in")).stdout == b"in\n"
    said = "".join(capfd.readouterr())
    assert name not in said
    assert "\x1b]0" not in said


async def test_packets_without_end_before_the_login_hold_up_nobody(place: Place) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.settings.listen_port)
    writer.write(b"SSH-2.0-x\r\n" + (b"\0\0\0\x0c\6\2\0\0\0\0" + bytes(6)) * 100_000)
    closed = asyncio.ensure_future(reader.read())
    longest, loop = 0.0, asyncio.get_running_loop()
    async with asyncio.timeout(20):
        while not closed.done():
            before = loop.time()
            await asyncio.sleep(0)
            longest = max(longest, loop.time() - before)
    assert longest < 0.5
    await asyncio.gather(closed, return_exceptions=True)
    writer.close()


async def test_a_megabyte_before_the_login_ends_it(place: Place) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.settings.listen_port)
    writer.write(b"SSH-2.0-x\r\n" + (b"\0\0\x80\x0c\6\2\0\0\x80\0" + bytes(0x8006)) * 20)
    with contextlib.suppress(ConnectionError):
        # Long before the login's time is over.
        async with asyncio.timeout(10):
            await reader.read()
    writer.close()


async def test_half_open_handshakes_run_into_their_time_out(quiet_place: Place) -> None:
    await quiet_place.put("alice")
    async with quiet_place.gateway(login_timeout=quiet_place.settings.hub_timeout):
        port = quiet_place.settings.listen_port
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        assert await asyncio.wait_for(reader.read(), 20)
        writer.close()
        assert (await (await quiet_place.client("alice")).run("alice", "echo in")).stdout == b"in\n"


async def test_a_connection_that_offers_key_after_key_is_ended(place: Place) -> None:
    keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(70)]
    with pytest.raises(asyncssh.DisconnectError, match="Too many authentication failures"):
        async with place.connect("alice", client_keys=keys):
            pass


async def test_a_transfer_that_the_gateways_end_cuts_fails_cleanly(quiet_place: Place) -> None:
    place = quiet_place
    await place.put("alice")
    alice = await place.client("alice")
    async with place.gateway():
        client = await alice.start("alice", "trap 'touch told' HUP; head -c 1000000000 /dev/zero; echo $? >status")
        assert client.stdout is not None
        await client.stdout.readexactly(5_000_000)
    assert await asyncio.wait_for(client.wait(), 30) == 255
    with contextlib.suppress(asyncio.IncompleteReadError):
        await client.communicate()
    async with place.gateway():
        assert (await alice.run("alice", "echo in")).stdout == b"in\n"


def count_in(made: Path) -> int:
    """What a program has written there last."""
    return int(made.read_text() or 0) if made.exists() else 0


async def at_rest(made: Path) -> int:
    """How much a program says it has made, once it makes no more."""
    sizes = [-1, 0]
    while sizes[-1] == 0 or sizes[-1] != sizes[-2]:
        await asyncio.sleep(1)
        sizes.append(count_in(made))
    return sizes[-1]


MAKES = "i=0; while [ $i -lt 100 ]; do head -c 1000000 /dev/zero; i=$((i+1)); echo $i > made; done"


async def test_a_reader_that_is_slow_costs_no_memory_and_holds_up_nobody(quiet_place: Place) -> None:
    place, http = quiet_place, free_port()
    await place.put("alice")
    alice = await place.client("alice")
    process = await start(place, http)
    try:
        await until_async(lambda: serves(place.settings.listen_port))
        assert (await alice.run("alice", "echo in")).stdout == b"in\n"
        before = memory(process.pid)
        slow = await alice.start("alice", MAKES)
        async with asyncio.timeout(30):
            assert await at_rest(place.directory("alice") / "made") < 30
        assert memory(process.pid) - before < 10_000_000
        assert (await alice.run("alice", "echo in")).stdout == b"in\n"
        await end(slow)
    finally:
        process.terminate()
        await process.wait()


async def test_a_client_that_grants_much_and_reads_nothing_costs_no_memory(quiet_place: Place) -> None:
    place = quiet_place
    await place.put("alice")
    key = (await place.client("alice")).key
    process = await start(place, free_port())
    try:
        await until_async(lambda: serves(place.settings.listen_port))
        async with place.connect("alice", key) as connection:
            assert (await connection.run("echo in")).stdout == "in\n"
            before = memory(process.pid)
            client = await connection.create_process(MAKES, encoding=None, window=0xFFFFFFFF)
            transport = connection._transport
            assert transport is not None
            transport.pause_reading()
            async with asyncio.timeout(30):
                assert await at_rest(place.directory("alice") / "made") < 30
            assert memory(process.pid) - before < 10_000_000
            transport.resume_reading()
            taken = 0
            async with asyncio.timeout(30):
                while piece := await client.stdout.read(1_000_000):
                    taken += len(piece)
            assert taken == 100_000_000
    finally:
        process.terminate()
        await process.wait()


async def test_idle_sessions_are_small(quiet_place: Place) -> None:
    place, http = quiet_place, free_port()
    await place.put("alice")
    key = (await place.client("alice")).key
    process = await start(place, http)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(process.terminate)
        await until_async(lambda: serves(place.settings.listen_port))
        for _ in range(5):
            await enter(place, stack, key)
        before = memory(process.pid)
        for _ in range(30):
            await enter(place, stack, key)
        assert (memory(process.pid) - before) / 30 < 150_000
    await process.wait()


async def enter(place: Place, stack: contextlib.AsyncExitStack, key: asyncssh.SSHKey) -> None:
    """Another session that does nothing."""
    connection = await stack.enter_async_context(place.connect("alice", key))
    process = await connection.create_process("echo on; cat", term_type="xterm")
    assert (await process.stdout.readline()).strip() == "on"


async def serves(port: int) -> bool:
    """Whether a gateway greets there."""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        line = await reader.readline()
        writer.close()
        return line.startswith(b"SSH-")
    return False
