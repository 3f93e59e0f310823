"""What the attach endpoint forwards, ports and agents: to a workspace of this machine, and to one in a container."""

import asyncio
import contextlib
import random
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from tests.support.attach_places import NAME, Place
from tests.support.ports import free_port
from tests.support.waiting import until_async

GREETER = """
import os, socket, sys
listener = socket.create_server((sys.argv[1], 0))
print(os.getpid(), listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
connection.sendall(b"hello\\n")
while data := connection.recv(65536):
    connection.sendall(data)
connection.sendall(b"bye\\n")
"""
CALLER = """
import socket, sys
where = sys.argv[1]
caller = socket.socket(socket.AF_UNIX if where.startswith("/") else socket.AF_INET)
caller.connect(where if where.startswith("/") else ("127.0.0.1", int(where)))
caller.sendall(b"question" * 100000)
caller.shutdown(socket.SHUT_WR)
said = b""
while data := caller.recv(65536):
    said += data
print(len(said), said[-6:].decode())
"""


async def test_the_workspaces_own_ports_can_be_reached(place: Place) -> None:
    data = random.Random(4).randbytes(5_000_000)
    async with greeter(place) as port, place.connect() as connection:
        reader, writer = await connection.open_connection("localhost", port)
        assert await reader.readline() == b"hello\n"
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == data + b"bye\n"
        with pytest.raises(asyncssh.ChannelOpenError, match=r"refused|Errno 111"):
            await connection.open_connection("127.0.0.1", port)


async def test_other_hosts_are_reached_from_inside_the_workspace(place: Place) -> None:
    async with greeter(place, "127.0.0.2") as port, place.connect() as connection:
        reader, writer = await connection.open_connection("127.0.0.2", port)
        writer.write_eof()
        assert await reader.read() == b"hello\nbye\n"
        with pytest.raises(asyncssh.ChannelOpenError, match=r"unreachable|resolution|not known"):
            await connection.open_connection("no-such-host.invalid", port)


async def test_ssh_carries_a_port_over_its_own_streams(place: Place) -> None:
    async with greeter(place) as port:
        ran = await place.gateway.run(NAME, options=("-W", f"localhost:{port}"), stdin=b"to and fro\n")
        assert ran.stdout == b"hello\nto and fro\nbye\n"


@pytest.mark.parametrize("port", [0, free_port()], ids=["any", "one"])
async def test_a_client_listens_on_a_port_of_the_workspace(place: Place, port: int) -> None:
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server, place.connect() as connection:
        own = server.sockets[0].getsockname()[1]
        listener = await connection.forward_remote_port("localhost", port, "127.0.0.1", own)
        callers = [connection.run(f"python3 -c {shlex.quote(CALLER)} {listener.get_port()}") for _ in range(3)]
        for ran in await asyncio.gather(*callers):
            assert (ran.stdout, ran.stderr) == ("800006 answer\n", "")
        assert port in (0, listener.get_port())
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("localhost", listener.get_port(), "127.0.0.1", own)
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("192.0.2.1", 0, "127.0.0.1", own)
        listener.close()
        await until_async(lambda: is_refused(place, listener.get_port()))


async def test_programs_reach_the_clients_ssh_agent(place: Place, tmp_path: Path) -> None:
    async with await asyncio.start_unix_server(answer, tmp_path / "agent"):
        async with place.connect(agent=tmp_path / "agent") as connection:
            ran = await connection.run(f'echo "$SSH_AUTH_SOCK"; python3 -c {shlex.quote(CALLER)} "$SSH_AUTH_SOCK"')
            assert str(ran.stdout).splitlines()[1:] == ["800006 answer"], ran.stderr
            path = str(ran.stdout).splitlines()[0]
        await until_async(lambda: says(place, f"ls {path}", ""))


@contextlib.asynccontextmanager
async def greeter(place: Place, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """A program of the workspace that listens; its port."""
    running = await place.gateway.start(NAME, f"exec python3 -c {shlex.quote(GREETER)} {host}")
    assert running.stdout is not None
    pid, port = (int(number) for number in (await running.stdout.readline()).split())
    try:
        yield port
    finally:
        await place.inside(f"kill {pid}")
        await running.communicate()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read() + b"answer")
    await writer.drain()
    writer.close()


async def is_refused(place: Place, port: int) -> bool:
    return await says(
        place, f"python3 -c {shlex.quote(CALLER)} {port} 2>&1 | grep -o ConnectionRefused", "ConnectionRefused\n"
    )


async def says(place: Place, line: str, expected: str) -> bool:
    return await place.inside(line) == expected
