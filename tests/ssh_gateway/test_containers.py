"""Through the gateway into a container: what passes is in `test_relay.py`, here is that it comes out in there."""

from collections.abc import AsyncIterator

import pytest

from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.exec import ContainerEntry
from tests.ssh_gateway.place import Place
from tests.support.attach_places import ENGINE_URL, PYTHON_IMAGE, engine_problem, running_container
from tests.support.makers import workspace
from tests.support.openssh import execute

GREET = (
    "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True);"
    "c, _ = s.accept(); c.sendall(b'hello from inside')"
)


@pytest.fixture
async def inside(place: Place) -> AsyncIterator[Place]:
    """A place where alice's workspace is a container."""
    if (problem := engine_problem(PYTHON_IMAGE)) is not None:
        pytest.skip(problem)
    engine = Engine(ENGINE_URL, "test")
    await engine.open()
    try:
        with running_container(PYTHON_IMAGE) as name:
            place.entries[workspace("alice", "").name] = ContainerEntry(engine, name, home="/work")
            yield place
    finally:
        await engine.aclose()


async def test_commands_streams_and_ports_lead_into_the_container(inside: Place) -> None:
    alice = await inside.client("alice")
    ran = await alice.run("alice", "hostname; pwd; cat >&2; exit 7", stdin=b"input")
    assert (ran.status, ran.stdout, ran.stderr) == (7, b"workspace\n/work\n", "input")
    ran = await execute("sh", "-c", " ".join([*alice.command("alice"), "'yes; touch ended' | head -1"]), within=20)
    assert ran.stdout == b"y\n"
    assert (await alice.run("alice", "ls")).stdout == b"ended\n"
    greeter = await alice.start("alice", f'exec python3 -c "{GREET}"')
    assert greeter.stdout is not None
    port = int(await greeter.stdout.readline())
    assert (await alice.run("alice", options=("-W", f"localhost:{port}"))).stdout == b"hello from inside"
    await greeter.communicate()
