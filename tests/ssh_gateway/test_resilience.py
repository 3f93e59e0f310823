"""The gateway when what it leans on goes away, and when strangers lean on it."""

import asyncio
import contextlib
import time
from datetime import datetime

from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.queries import AttachAddress
from mlhub_shared.runtime.clock import utc_now
from mlhub_spawner_worker.attach import AttachServer
from mlhub_ssh_gateway.settings import SshGatewaySettings
from tests.ssh_gateway.place import Place, end, read_until
from tests.support.hub_api import ScriptedHub
from tests.support.makers import workspace
from tests.support.waiting import until


async def test_the_bus_may_die_during_a_session_and_before_the_next(place: Place) -> None:
    alice = await place.client("alice")
    client = await alice.start("alice", "cat")
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(b"one\n")
    await read_until(client.stdout, b"one\n")
    await place.nats_server.kill()
    assert place.runtime is not None
    health = place.runtime.health
    await until(lambda: bool(health.problems()))
    client.stdin.write(b"two\n")
    await read_until(client.stdout, b"two\n")
    assert (await alice.run("alice", "echo in")).stdout == b"in\n"
    await place.nats_server.start()
    await until(lambda: not health.problems(), within=20)
    client.stdin.write(b"three\n")
    await read_until(client.stdout, b"three\n")
    client.stdin.close()
    assert await asyncio.wait_for(client.wait(), 20) == 0
    await client.communicate()


async def test_a_gateway_that_ends_says_so_and_its_successor_serves(quiet_place: Place) -> None:
    await quiet_place.put("alice")
    alice = await quiet_place.client("alice")
    async with quiet_place.gateway():
        client = await alice.start("alice", "echo on; cat")
        assert client.stdout is not None
        await read_until(client.stdout, b"on\n")
    _, stderr = await asyncio.wait_for(client.communicate(), 20)
    assert client.returncode == 255
    assert b"the gateway is stopping" in stderr
    async with quiet_place.gateway():
        assert (await alice.run("alice", "echo in")).stdout == b"in\n"


async def test_a_worker_that_restarts_elsewhere_is_found_again(place: Place) -> None:
    alice = await place.client("alice")
    before = place.attach
    await before.__aexit__(None, None, None)
    waiting = asyncio.ensure_future(alice.run("alice", "echo in"))
    await asyncio.sleep(0.5)
    async with AttachServer(
        host="127.0.0.1",
        port=0,
        host_key_file=place.folder / "attach" / "host_key",
        gateway_public_key=place.settings.client_key_file.with_name("client_key.pub").read_text(),
        enter=place.entries.get,
    ) as after:
        place.attach = after
        assert (await waiting).stdout == b"in\n"


async def test_an_endpoint_with_another_host_key_is_not_entered(place: Place) -> None:
    address = place.attach.address
    wrong = place.settings.host_key_file.with_name("host_key.pub").read_text()
    forged = AttachAddress(host=address.host, port=address.port, host_key=wrong)

    class Forged(AttachServer):
        address = forged

    place.attach.__class__ = Forged
    ran = await (await place.client("alice")).run("alice", "echo in")
    assert (ran.status, ran.stdout) == (255, b"")
    assert "another host key" in ran.stderr


async def test_silent_connections_lock_nobody_out(quiet_place: Place) -> None:
    await quiet_place.put("alice")
    async with quiet_place.gateway(max_handshakes=8, max_handshakes_per_address=2, max_waiting=4):
        port = quiet_place.settings.listen_port
        silent = [await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0)) for _ in range(12)]
        started = time.monotonic()
        assert (await (await quiet_place.client("alice")).run("alice", "echo in")).stdout == b"in\n"
        # Whoever waits for them waits as long as they may take.
        assert time.monotonic() - started < quiet_place.settings.login_timeout.total_seconds()
        for _, writer in silent:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def test_who_comes_too_often_waits_and_keeps_nobody_else_waiting(quiet_place: Place) -> None:
    await quiet_place.put("alice")
    alice = await quiet_place.client("alice")
    async with quiet_place.gateway(connections_per_second=2, max_waiting=40):
        port = quiet_place.settings.listen_port
        flood = [asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0)) for _ in range(40)]
        connections = await asyncio.gather(*flood)
        greetings = asyncio.gather(*(greeting(reader) for reader, _ in connections))
        started = time.monotonic()
        assert (await alice.run("alice", "echo in")).stdout == b"in\n"
        took = time.monotonic() - started
        assert took < quiet_place.settings.login_timeout.total_seconds()
        for _, writer in connections:
            writer.close()
        said = await greetings
        assert 1 <= sum(line.startswith(b"SSH-2.0-") for line in said) <= 2 * took + 4
        assert said.count(b"") >= 26


async def test_programs_in_workspaces_are_told_nothing(quiet_place: Place) -> None:
    networks = SshGatewaySettings(hub_name="test", refused_networks="10.0.0.0/8, 127.0.0.0/8").refused_networks
    for refused, expected in ((networks, b""), (networks[:1], b"SSH-2.0-")):
        async with quiet_place.gateway(refused_networks=refused):
            reader, writer = await asyncio.open_connection("127.0.0.1", quiet_place.settings.listen_port)
            assert await asyncio.wait_for(reader.read(8), 20) == expected
            writer.close()


async def test_a_session_is_an_event_when_it_begins_and_when_it_ends(place: Place, hub: ScriptedHub) -> None:
    started = utc_now()
    alice = await place.client("alice")
    await alice.run("alice", "head -c 1000 /dev/zero; cat >/dev/null", stdin=b"x" * 500)
    opened, closed = await events(place, started, 2)
    assert (opened.kind, closed.kind) == (EventKind.SESSION_OPENED, EventKind.SESSION_CLOSED)
    assert opened.correlation_id == closed.correlation_id
    assert closed.requester == "user:alice"
    assert closed.workspace == workspace("alice")
    expected = {"client": "127.0.0.1", "method": "key", "fingerprint": alice.key.get_fingerprint()}
    assert opened.detail == expected
    assert {key: closed.detail[key] for key in expected} == expected
    assert (closed.detail["bytes_in"], closed.detail["bytes_out"]) == (500, 1000)
    await until(lambda: len(hub.activity) >= 1)
    assert hub.activity[0][0] == "alice"
    assert list(hub.activity[0][1]["servers"]) == [""]


async def test_a_session_that_moves_bytes_counts_as_activity_and_an_idle_one_does_not(
    place: Place, hub: ScriptedHub
) -> None:
    client = await (await place.client("alice")).start("alice", "cat")
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(b"one\n")
    await read_until(client.stdout, b"one\n")
    await asyncio.sleep(2.5)
    before = len(hub.activity)
    await asyncio.sleep(1)
    assert len(hub.activity) == before
    client.stdin.write(b"two\n")
    await until(lambda: len(hub.activity) == before + 1)
    await end(client)


async def test_events_of_a_time_without_the_bus_arrive_when_it_is_back(place: Place) -> None:
    started = utc_now()
    alice = await place.client("alice")
    await place.nats_server.kill()
    assert (await alice.run("alice", "echo in")).stdout == b"in\n"
    await place.nats_server.start()
    await until(lambda: place.bus.is_connected, within=20)
    opened, closed = await events(place, started, 2)
    assert (opened.kind, closed.kind) == (EventKind.SESSION_OPENED, EventKind.SESSION_CLOSED)


async def greeting(reader: asyncio.StreamReader) -> bytes:
    """What the server says first; nothing if it hangs up."""
    with contextlib.suppress(OSError):
        return await asyncio.wait_for(reader.readline(), 20)
    return b""


async def events(place: Place, since: datetime, count: int) -> list[Event]:
    """The next events of alice's workspace."""
    found: list[Event] = []
    async with asyncio.timeout(20):
        async with contextlib.aclosing(place.bus.replay(workspace("alice").name, since=since)) as stream:
            async for event in stream:
                found.append(event)
                if len(found) == count:
                    break
    return found
