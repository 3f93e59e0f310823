"""The ports of a pod, as far as they differ from any workspace's: in an image without python3 the API carries them."""

import asyncio
import contextlib
import os
import random
import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest

from mlhub_shared.contracts.workspace import Endpoint
from mlhub_spawner_worker.backends.inside import ports
from mlhub_spawner_worker.backends.kubernetes.exec import KubernetesPlace
from mlhub_spawner_worker.backends.kubernetes.stream import StreamClient
from tests.support.attach_places import NAME, Place, entered, serve, through
from tests.support.middle_box import MiddleBox
from tests.support.pods import BARE_IMAGE, Pods
from tests.support.ports import free_port

MEGABYTE = 1 << 20
TOOLS = ("cat", "grep", "head", "id", "ls", "setsid", "sh", "sleep", "stty", "tty")
ECHO = """
import socket, sys, threading
def serve(connection):
    while data := connection.recv(65536):
        connection.sendall(data)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("on", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
FLOOD = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("on", flush=True)
listener.accept()[0].sendall(bytes(50 << 20))
"""


@pytest.fixture
async def bare(pods: Pods, tmp_path: Path) -> AsyncIterator[Place]:
    """A pod in which there is a shell, and no python3 to be found."""
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    path = {} if pods.fake is None else {"PATH": str(tmp_path / "bin")}
    async with (
        pods.running(BARE_IMAGE, **path) as pod,
        entered(pod) as entry,
        serve(tmp_path, entry, "", pod.inside) as place,
    ):
        yield place


@asynccontextmanager
async def listening(place: Place, program: str) -> AsyncIterator[int]:
    """A server of the workspace, by a python that no script of ours finds; its port."""
    port = free_port()
    running = await place.gateway.start(NAME, f"exec {sys.executable} -c {shlex.quote(program)} {port}")
    assert running.stdout is not None
    if not await running.stdout.readline():
        pytest.skip("there is nothing to listen with in this image")
    try:
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        await running.communicate()


async def test_a_port_is_reached_without_anything_in_the_image(bare: Place) -> None:
    data = random.Random(7).randbytes(5 * MEGABYTE)
    async with listening(bare, ECHO) as port, bare.connect() as connection:
        for _ in range(3):
            reader, writer = await connection.open_connection("localhost", port)
            writer.write(data)
            assert await asyncio.wait_for(reader.readexactly(len(data)), 60) == data
            writer.close()
        with pytest.raises(asyncssh.ChannelOpenError, match="refused"):
            await connection.open_connection("localhost", free_port())


async def test_a_slow_reader_of_such_a_port_costs_no_memory_and_gets_everything(bare: Place) -> None:
    async with listening(bare, FLOOD) as port, bare.connect() as connection:
        reader, _ = await connection.open_connection("localhost", port)
        await reader.readexactly(1)
        before = resident()
        await asyncio.sleep(2)
        assert resident() - before < 16 * MEGABYTE
        assert len(await asyncio.wait_for(reader.read(), 60)) == 50 * MEGABYTE - 1


async def test_what_an_image_lacks_is_named(bare: Place, tmp_path: Path) -> None:
    async with bare.connect(agent=tmp_path / "agent") as connection:
        ran = await connection.run('echo "in $SSH_AUTH_SOCK"')
        assert ran.stdout == "in \n"
        assert str(ran.stderr).startswith("the SSH agent can't be forwarded: this needs python3")
        with pytest.raises(asyncssh.ChannelOpenError, match="needs python3 in the workspace's image"):
            await connection.open_connection("192.0.2.1", 80)
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("localhost", 0, "127.0.0.1", 4000)


@pytest.mark.parametrize("verb", ["create", "get"])
async def test_a_role_without_the_verb_is_named(verb: str, bare: Place, pods: Pods) -> None:
    if pods.fake is None:
        pytest.skip("the cluster's roles are not the test's")
    async with bare.connect() as connection:
        pods.fake.faults.revoke(verb, "pods/portforward")
        with pytest.raises(asyncssh.ChannelOpenError, match="may not create and get pods/portforward"):
            await connection.open_connection("localhost", 4000)


async def test_connections_end_when_the_api_drops_them(pods: Pods, box: MiddleBox, tmp_path: Path) -> None:
    async with through(box, pods, tmp_path) as place, place.connect() as connection, listening(place, ECHO) as port:
        reader, writer = await connection.open_connection("localhost", port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        box.cut()
        assert await asyncio.wait_for(reader.read(), 20) == b""


async def test_the_ports_that_programs_listen_on_are_seen(pods: Pods, tmp_path: Path) -> None:
    client = StreamClient(pods.configuration)
    try:
        async with pods.running() as pod, entered(pod) as entry, serve(tmp_path, entry, "", pod.inside) as place:
            address = await pod.address()
            async with listening(place, ECHO) as own, listening(place, ECHO.replace("127.0.0.1", address)) as outer:
                around = ports.Surroundings(1, address, needs_python=False)
                seen = await ports.listening(KubernetesPlace(client, pods.namespace, pod.name), around)
                found = {one.port: one for one in seen}
                assert (found[own].endpoint, found[own].obstacle) == (None, "")
                assert found[outer].endpoint == Endpoint(host=address, port=outer)
                assert found[outer].program.startswith("python")
    finally:
        await client.aclose()


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
