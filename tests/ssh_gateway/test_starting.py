"""Connecting to a workspace that does not run."""

import asyncio
from typing import Any

from aiohttp import web

from mlhub_shared.contracts.workspace import Phase, Reason
from tests.ssh_gateway.place import Place, end, read_until
from tests.support.hub_api import ScriptedHub, refusal


def asked_to_start(hub: ScriptedHub) -> list[str]:
    return [path for path in hub.asked if path.startswith("POST") and "activity" not in path]


async def test_a_stopped_workspace_is_started_and_the_session_tells_how_it_goes(place: Place, hub: ScriptedHub) -> None:
    await place.put("alice", "gpu1", phase=Phase.STOPPED, reason=Reason.ASKED)
    await place.put("bob", phase=Phase.QUEUED, sequence=1)

    async def start(user: str, server: str) -> None:
        async def run() -> None:
            steps: list[tuple[Phase, dict[str, Any]]] = [
                (Phase.QUEUED, {"sequence": 2}),
                (Phase.PREPARING, {"message": "Making the directory"}),
                (Phase.STARTING, {}),
                (Phase.READY, {}),
            ]
            for phase, fields in steps:
                await place.put(user, server, phase=phase, generation=2, **fields)
                await asyncio.sleep(0.2)

        tasks.append(asyncio.ensure_future(run()))

    tasks: list[asyncio.Task[None]] = []
    hub.on_start = start
    alice = await place.client("alice")
    ran = await alice.run("alice--gpu1", "cat; pwd", stdin=b"typed ahead\n")
    await asyncio.gather(*tasks)
    assert ran.stdout.decode() == f"typed ahead\n{place.directory('alice', 'gpu1')}\n"
    assert ran.stderr.splitlines()[:-1] == [
        "Starting workspace alice--gpu1 ...",
        "... queued, 2nd in line",
        "... making the directory",
        "... starting",
    ]
    assert ran.stderr.splitlines()[-1].startswith("... ready in ")
    assert asked_to_start(hub) == ["POST /hub/api/users/alice/servers/gpu1"]


async def test_a_start_that_fails_ends_with_its_reason(place: Place, hub: ScriptedHub) -> None:
    await place.put("alice", phase=Phase.STOPPED)

    async def start(user: str, server: str) -> web.Response:
        await place.put(user, server, phase=Phase.FAILED, generation=2, message="no space left on the disk\x1b[2J")
        return refusal(500, "Spawning server for alice failed")

    hub.on_start = start
    ran = await (await place.client("alice")).run("alice", "echo in")
    assert (ran.status, ran.stdout) == (255, b"")
    assert ran.stderr.endswith("workspace alice did not start: no space left on the disk[2J\n")


async def test_what_the_hub_refuses_is_told(place: Place, hub: ScriptedHub) -> None:
    await place.put("alice", phase=Phase.STOPPED)

    async def start(user: str, server: str) -> web.Response:
        return refusal(400, "cpu must be at most 4, not 99.0")

    hub.on_start = start
    ran = await (await place.client("alice")).run("alice", "echo in")
    assert (ran.status, ran.stdout) == (255, b"")
    assert "the hub refuses: cpu must be at most 4, not 99.0" in ran.stderr


async def test_a_hub_that_is_busy_is_asked_again(place: Place, hub: ScriptedHub) -> None:
    await place.put("alice", phase=Phase.STOPPED)
    answers = iter([refusal(503, "busy"), refusal(400, "alice is already running")])

    async def start(user: str, server: str) -> web.Response | None:
        if (answer := next(answers, None)) is None:
            await place.put(user, server, generation=2)
        return answer

    hub.on_start = start
    ran = await (await place.client("alice")).run("alice", "echo in")
    assert ran.stdout == b"in\n"
    assert len(asked_to_start(hub)) == 3


async def test_one_that_somebody_else_has_started_is_waited_for(place: Place, hub: ScriptedHub) -> None:
    await place.put("alice", phase=Phase.STARTING, generation=5)
    alice = await place.client("alice")
    client = await alice.start("alice", "echo in")
    assert client.stderr is not None
    assert client.stdout is not None
    await read_until(client.stderr, b"... starting\n")
    await place.put("alice", generation=5)
    await read_until(client.stdout, b"in\n")
    await client.communicate()
    assert asked_to_start(hub) == []


async def test_a_slip_of_the_pen_makes_no_workspace(place: Place, hub: ScriptedHub) -> None:
    ran = await (await place.client("alice")).run("alice--gpu2", "echo in")
    assert (ran.status, ran.stderr) == (255, "there is no workspace alice--gpu2\n")
    assert asked_to_start(hub) == []


async def test_one_that_never_ran_is_started(place: Place, hub: ScriptedHub) -> None:
    async def start(user: str, server: str) -> None:
        await place.put(user, server, generation=1)

    hub.on_start = start
    alice = await place.client("alice")
    assert (await alice.run("alice--gpu1", "echo in")).stdout == b"in\n"
    bob = await place.client("bob")
    assert (await bob.run("bob", "echo in")).stdout == b"in\n"


async def test_a_forwarded_port_starts_it_too(place: Place, hub: ScriptedHub) -> None:
    await place.put("alice", phase=Phase.STOPPED)

    async def start(user: str, server: str) -> None:
        await place.put(user, server, generation=2)

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        writer.close()

    hub.on_start = start
    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        ran = await (await place.client("alice")).run("alice", options=("-W", f"localhost:{port}"))
    assert ran.stdout == b"hello\n"


async def test_control_c_ends_the_wait(place: Place, hub: ScriptedHub) -> None:
    await place.put("alice", phase=Phase.QUEUED)
    client = await (await place.client("alice")).start("alice", options=("-tt",))
    assert client.stdin is not None
    assert client.stderr is not None
    await read_until(client.stderr, b"1st in line")
    client.stdin.write(b"\x03")
    await asyncio.wait_for(client.wait(), 20)
    assert client.returncode == 130
    await client.communicate()


async def test_waiting_in_line_tries_nobodys_patience(quiet_place: Place) -> None:
    await quiet_place.put("alice", phase=Phase.QUEUED)
    async with quiet_place.gateway(start_timeout=quiet_place.settings.hub_timeout / 4):
        running = asyncio.ensure_future((await quiet_place.client("alice")).run("alice", "echo in"))
        await asyncio.sleep(1.5)
        await quiet_place.put("alice")
        ran = await running
    assert (ran.status, ran.stdout) == (0, b"in\n"), ran.stderr


async def test_patience_has_an_end(quiet_place: Place) -> None:
    await quiet_place.put("alice", phase=Phase.PREPARING)
    async with quiet_place.gateway(start_timeout=quiet_place.settings.hub_timeout / 4):
        ran = await (await quiet_place.client("alice")).run("alice", "echo in")
    assert (ran.status, ran.stdout) == (255, b"")
    assert "was not ready within" in ran.stderr


async def test_starting_can_be_switched_off(quiet_place: Place, hub: ScriptedHub) -> None:
    await quiet_place.put("alice", phase=Phase.STOPPED)
    async with quiet_place.gateway(start_on_connect=False):
        ran = await (await quiet_place.client("alice")).run("alice", "echo in")
    assert (ran.status, ran.stderr) == (255, "workspace alice is not running; start it on its page\n")
    assert asked_to_start(hub) == []


async def test_a_client_that_leaves_while_it_waits_leaves_nothing_behind(place: Place) -> None:
    await place.put("alice", phase=Phase.QUEUED)
    client = await (await place.client("alice")).start("alice", "touch ran")
    assert client.stderr is not None
    await read_until(client.stderr, b"1st in line")
    await end(client)
    await place.put("alice")
    assert (await (await place.client("alice")).run("alice", "ls")).stdout == b""
