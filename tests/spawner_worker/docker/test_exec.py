"""What is special about entering a container; what holds for every workspace is in `test_attach.py`."""

import asyncio
import contextlib
import os
import shlex
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest

from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.exec import ContainerEntry
from tests.support.attach_places import (
    BARE_IMAGE,
    ENGINE_URL,
    NAME,
    PYTHON_IMAGE,
    Place,
    container_place,
    engine_problem,
    in_container,
    running_container,
    serve,
)
from tests.support.memory import resident
from tests.support.openssh import execute
from tests.support.waiting import until_async

MEGABYTE = 1 << 20
ENGINE_SOCKET = ENGINE_URL.removeprefix("unix://")


@pytest.fixture(scope="module")
def bare() -> Iterator[str]:
    if (problem := engine_problem(BARE_IMAGE)) is not None:
        pytest.skip(problem)
    with running_container(BARE_IMAGE) as name:
        yield name


@pytest.fixture
def doomed(bare: str) -> Iterator[str]:
    """A container for a test to break."""
    with running_container(BARE_IMAGE) as name:
        yield name


@pytest.fixture
async def place(tmp_path: Path, bare: str) -> AsyncIterator[Place]:
    async with container_place(tmp_path, bare) as place:
        yield place


async def test_every_key_reaches_a_terminals_program_at_once(place: Place) -> None:
    # The engine would keep ^P back, which may be the begin of what detaches from a container.
    async with (
        place.connect() as connection,
        connection.create_process("stty raw -echo; echo on; od -An -v -w1 -tx1", term_type="xterm") as process,
    ):
        assert (await process.stdout.readline()).strip() == "on"
        for key in (*range(1, 32), 127):
            process.stdin.write(chr(key))
            assert int(await asyncio.wait_for(process.stdout.readline(), 10), 16) == key
        process.stdin.write("\0a")
        assert [int(await process.stdout.readline(), 16) for _ in range(2)] == [0, ord("a")]


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
async def test_a_login_shell_reads_the_profile_and_keeps_the_path_of_the_image(
    tmp_path: Path, doomed: str, shell: str
) -> None:
    lines = f"export OF_PROFILE=yes PATH=/of/profile; SHELL={shell}"
    await execute("docker", "exec", doomed, "sh", "-c", f"echo '{lines}' >>/etc/profile")
    async with container_place(tmp_path, doomed) as place:
        ran = await place.gateway.run(NAME, stdin=b"echo $OF_PROFILE,$PATH,$SHELL,$MLHUB_PATH\nexit 4\n")
        assert ran.stdout.decode() == f"yes,/opt/own/bin:{os.defpath}:/of/profile,{shell},\n"
        assert ran.status == 4


async def test_programs_know_their_user_as_after_a_login(place: Place) -> None:
    ran = await place.gateway.run(NAME, 'echo "$USER $LOGNAME $HOME $SHELL"')
    assert ran.stdout == b"root root /root /bin/sh\n"


async def test_a_status_tells_a_signal_as_shells_do(place: Place) -> None:
    assert (await place.gateway.run(NAME, "kill -KILL $$")).status == 128 + 9


async def test_programs_start_where_the_image_says_if_there_is_no_home(tmp_path: Path, bare: str) -> None:
    async with container_place(tmp_path, bare, home="/missing") as place:
        assert (await place.gateway.run(NAME, "pwd")).stdout == b"/\n"


async def test_what_an_image_lacks_is_named(place: Place, tmp_path: Path) -> None:
    async with place.connect(agent=tmp_path / "agent") as connection:
        ran = await connection.run('echo "in $SSH_AUTH_SOCK"')
        assert ran.stdout == "in \n"
        assert str(ran.stderr).startswith("the SSH agent can't be forwarded: this needs python3")
        with pytest.raises(asyncssh.ChannelOpenError, match="needs python3 in the workspace's image"):
            await connection.open_connection("localhost", 8888)
        process = await connection.create_process(subsystem="sftp")
        ended = await process.wait(timeout=20)
        assert ended.exit_status == 127
        assert "SFTP needs python3 or the sftp-server of OpenSSH" in str(ended.stderr)


async def test_an_image_without_a_shell_and_a_container_that_has_ended_say_so(tmp_path: Path, doomed: str) -> None:
    async with container_place(tmp_path, doomed) as place:
        await execute("docker", "exec", doomed, "rm", "/bin/sh")
        ran = await place.gateway.run(NAME, "true")
        assert ran.status == 126
        assert "/bin/sh" in ran.stderr
        await execute("docker", "kill", doomed)
        ran = await place.gateway.run(NAME, "true")
        assert ran.status == 126
        assert "is not running" in ran.stderr


async def test_a_session_ends_with_its_container(tmp_path: Path, doomed: str) -> None:
    async with container_place(tmp_path, doomed) as place:
        client = await place.gateway.start(NAME, "echo on; exec sleep 60")
        assert client.stdout is not None
        assert await client.stdout.readline() == b"on\n"
        await execute("docker", "rm", "--force", doomed)
        await asyncio.wait_for(client.communicate(), 20)
        assert client.returncode in (128 + 9, 255)


async def test_what_runs_is_hung_up_when_the_engine_drops_the_streams(tmp_path: Path, bare: str) -> None:
    async with between(tmp_path / "engine.sock") as cut, place_through(tmp_path, bare) as place:
        client = await place.gateway.start(NAME, "echo $$; exec sleep 60")
        assert client.stdout is not None
        pid = int(await client.stdout.readline())
        cut()
        _, said = await asyncio.wait_for(client.communicate(), 20)
        assert (client.returncode, b"connection to the workspace is lost" in said) == (255, True)
        await until_async(lambda: has_gone(place, pid))


async def test_what_runs_is_hung_up_when_the_endpoint_ends(tmp_path: Path, bare: str) -> None:
    async with container_place(tmp_path, bare) as place:
        pids = []
        for options in ((), ("-tt",)):
            client = await place.gateway.start(NAME, "echo $$; exec sleep 60", options=options)
            assert client.stdout is not None
            pids.append(int(await client.stdout.readline()))
    assert not any([await place.is_alive(pid) for pid in pids])


async def test_a_dropped_connection_to_a_port_leaves_nothing_behind(tmp_path: Path, bare: str) -> None:
    if (problem := engine_problem(PYTHON_IMAGE)) is not None:
        pytest.skip(problem)
    listen = "import socket, time; s = socket.create_server(('127.0.0.1', 4000)); print(1, flush=True); time.sleep(60)"
    with running_container(PYTHON_IMAGE) as name:
        async with container_place(tmp_path, name) as place:
            listener = await place.gateway.start(NAME, f'exec python3 -c "{listen}"')
            assert listener.stdout is not None
            assert await listener.stdout.readline() == b"1\n"
            assert await place.inside(CARRIERS) == "0\n"
            async with place.connect() as connection:
                # They are accepted by nobody, and so never closed by the other side either.
                for _ in range(20):
                    await connection.open_connection("localhost", 4000)
                assert await place.inside(CARRIERS) == "1\n", "one for all of them"
                assert await place.inside(CONNECTIONS) == "20\n"
            await until_async(lambda: says(place, CONNECTIONS, "0\n"))
            listener.terminate()
            await listener.communicate()
        await until_async(lambda: says(place, CARRIERS, "0\n"))


async def test_a_connection_that_is_slow_holds_up_no_other_and_costs_no_memory(tmp_path: Path) -> None:
    if (problem := engine_problem(PYTHON_IMAGE)) is not None:
        pytest.skip(problem)
    with running_container(PYTHON_IMAGE) as name:
        async with container_place(tmp_path, name) as place, place.connect() as connection:
            server = await place.gateway.start(NAME, f"exec python3 -c {shlex.quote(FLOOD)}")
            assert server.stdout is not None
            assert await server.stdout.readline() == b"1\n"
            slow, slow_end = await connection.open_connection("localhost", 4001)
            _, deaf_end = await connection.open_connection("localhost", 4001)
            deaf_end.write(b"listen to none of this")
            slow_end.write(b"send")
            assert await slow.readexactly(1) == b"s"
            before = resident()
            deaf_end.write(bytes(4 * MEGABYTE))
            await asyncio.sleep(1)
            for _ in range(10):
                quick, quick_end = await connection.open_connection("localhost", 4001)
                quick_end.write(b"echo")
                assert await asyncio.wait_for(quick.readexactly(4), 5) == b"echo"
                quick_end.close()
            assert resident() - before < 16 * MEGABYTE
            assert len(await asyncio.wait_for(slow.read(), 30)) == 50 * MEGABYTE - 1
            deaf_end.close()
            server.terminate()
            await server.communicate()


FLOOD = """
import socket, threading, time
def serve(connection):
    match connection.recv(4):
        case b"send":
            connection.sendall(b"s" * (50 << 20))
            connection.close()
        case b"echo":
            connection.sendall(b"echo")
            connection.close()
        case _:
            time.sleep(60)
server = socket.create_server(("127.0.0.1", 4001), backlog=50)
print(1, flush=True)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""

# By what they run: anything else of the endpoint's comes and goes on its own. The brackets keep grep from itself.
CARRIERS = "grep --files-with-matches '[S]ECONDS_TO_CONNECT' /proc/[0-9]*/cmdline | wc -l"
# From the callers' end: those of the listener begin with its port.
CONNECTIONS = "grep -c '^ *[0-9]*: 0100007F:[0-9A-F]* 0100007F:0FA0 01 ' /proc/net/tcp"


async def says(place: Place, line: str, expected: str) -> bool:
    return await place.inside(line) == expected


async def has_gone(place: Place, pid: int) -> bool:
    return not await place.is_alive(pid)


@asynccontextmanager
async def place_through(folder: Path, container: str) -> AsyncIterator[Place]:
    engine = Engine(f"unix://{folder}/engine.sock", "test")
    await engine.open()
    try:
        async with serve(folder, ContainerEntry(engine, container, home=None), "/", in_container(container)) as place:
            yield place
    finally:
        await engine.aclose()


@asynccontextmanager
async def between(path: Path) -> AsyncIterator[Callable[[], None]]:
    """A way to the engine whose open connections can be cut."""
    writers: set[asyncio.StreamWriter] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(ENGINE_SOCKET)
        both = {writer, up_writer}
        writers.update(both)
        await asyncio.gather(copy(reader, up_writer), copy(up_reader, writer))
        for one in both:
            one.close()
        writers.difference_update(both)

    def cut() -> None:
        for writer in writers:
            writer.transport.abort()

    server = await asyncio.start_unix_server(serve_one, path)
    try:
        yield cut
    finally:
        cut()
        server.close()
