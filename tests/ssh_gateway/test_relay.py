"""What passes through the gateway, with the OpenSSH client."""

import asyncio
import hashlib
import random
import time
from pathlib import Path

import asyncssh

from tests.ssh_gateway.place import Place, end, read_until
from tests.support.openssh import execute
from tests.support.ports import free_port
from tests.support.waiting import until_async


async def test_a_command_has_its_streams_apart_and_its_status(place: Place) -> None:
    alice = await place.client("alice")
    ran = await alice.run("alice", "pwd; echo error >&2; exit 7")
    assert (ran.status, ran.stdout, ran.stderr) == (7, f"{place.directory('alice')}\n".encode(), "error\n")


async def test_megabytes_pass_both_ways_unchanged(place: Place) -> None:
    data = random.Random(1).randbytes(20_000_000)
    alice = await place.client("alice")
    back = await alice.run("alice", "cat", stdin=data)
    assert (back.status, len(back.stdout)) == (0, len(data))
    assert hashlib.sha256(back.stdout).digest() == hashlib.sha256(data).digest()


async def test_output_after_the_end_of_input_still_arrives(place: Place) -> None:
    alice = await place.client("alice")
    ran = await alice.run("alice", "cat; echo after; echo more >&2", stdin=b"before\n")
    assert (ran.stdout, ran.stderr) == (b"before\nafter\n", "more\n")


async def test_a_terminal_follows_the_client(place: Place) -> None:
    line = "trap 'stty size' WINCH; stty size; echo $TERM; read x; read y; kill -TERM $$"
    async with (
        place.connect("alice", await key_of(place, "alice")) as connection,
        connection.create_process(line, term_type="vt220", term_size=(101, 37)) as process,
    ):
        assert [(await process.stdout.readline()).strip() for _ in range(2)] == ["37 101", "vt220"]
        process.change_terminal_size(90, 20)
        assert (await process.stdout.readline()).strip() == "20 90"
        process.stdin.write("\n\n")
        await process.wait(timeout=20)
        assert process.exit_signal is not None
        assert process.exit_signal[0] == "TERM"


async def test_signals_go_in_and_exit_signals_come_out(place: Place) -> None:
    async with (
        place.connect("alice", await key_of(place, "alice")) as connection,
        connection.create_process("echo on; exec sleep 60") as process,
    ):
        assert await process.stdout.readline() == "on\n"
        process.send_signal("USR1")
        await process.wait(timeout=20)
        assert process.exit_signal is not None
        assert process.exit_signal[0] == "USR1"


async def test_a_program_whose_reader_has_gone_ends(place: Place) -> None:
    alice = await place.client("alice")
    started = time.monotonic()
    ran = await execute("sh", "-c", " ".join([*alice.command("alice"), "'yes; touch ended' | head -1"]), within=30)
    assert ran.stdout == b"y\n"
    assert time.monotonic() - started < 10


async def test_a_local_port_leads_to_the_workspaces_own(place: Place) -> None:
    alice = await place.client("alice")
    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        inner, outer = server.sockets[0].getsockname()[1], free_port()
        client = await alice.start("alice", options=("-N", "-L", f"127.0.0.1:{outer}:localhost:{inner}"))
        try:
            assert await fetch(outer) == b"hello\n"
        finally:
            await end(client)


async def test_a_port_of_the_workspace_leads_back_to_the_client(place: Place) -> None:
    alice = await place.client("alice")
    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        local, remote = server.sockets[0].getsockname()[1], free_port()
        client = await alice.start("alice", options=("-N", "-R", f"{remote}:127.0.0.1:{local}"))
        try:
            assert await fetch(remote) == b"hello\n"
        finally:
            await end(client)
        await until_async(lambda: is_closed(remote))


async def test_no_port_of_another_machine_can_be_reached(place: Place) -> None:
    alice = await place.client("alice")
    ran = await alice.run("alice", options=("-W", "192.0.2.1:80"))
    assert ran.status == 255


async def test_files_are_copied(place: Place, tmp_path: Path) -> None:
    data = random.Random(2).randbytes(2_000_000)
    (tmp_path / "up").write_bytes(data)
    alice = await place.client("alice")
    common = [*alice.options, "-P", str(alice.port)]
    up = await execute("scp", *common, str(tmp_path / "up"), "alice@127.0.0.1:copied")
    assert up.status == 0, up.stderr
    assert (place.directory("alice") / "copied").read_bytes() == data
    down = await execute("scp", *common, "alice@127.0.0.1:copied", str(tmp_path / "down"))
    assert down.status == 0, down.stderr
    assert (tmp_path / "down").read_bytes() == data
    (tmp_path / "batch").write_text(f"mkdir folder\nput {tmp_path}/up folder/there\nls -l folder\n")
    batch = await execute("sftp", *common, "-b", str(tmp_path / "batch"), "alice@127.0.0.1")
    assert batch.status == 0, batch.stderr
    assert (place.directory("alice") / "folder" / "there").read_bytes() == data


async def test_many_sessions_share_one_connection(place: Place) -> None:
    alice = await place.client("alice")
    shared = ("-o", f"ControlPath={alice.folder}/mux", "-o", "ControlPersist=no")
    master = await alice.start("alice", "echo up; cat", options=("-o", "ControlMaster=yes", *shared))
    assert master.stdout is not None
    try:
        await read_until(master.stdout, b"up\n")
        runs = await asyncio.gather(*(alice.run("alice", f"exit {n}", options=shared) for n in range(1, 6)))
        assert [ran.status for ran in runs] == [1, 2, 3, 4, 5]
    finally:
        await end(master)


async def test_the_clients_agent_is_reachable_inside_and_only_for_whoever_forwards_it(place: Place) -> None:
    alice = await place.client("alice")
    socket = alice.folder / "agent"
    agent = await asyncio.create_subprocess_exec(
        "ssh-agent", "-D", "-a", str(socket), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(20):
            while not socket.exists():  # noqa: ASYNC110  (the agent tells nobody)
                await asyncio.sleep(0.02)
        with_agent = ("-o", f"IdentityAgent={socket}")
        added = await execute("env", f"SSH_AUTH_SOCK={socket}", "ssh-add", str(alice.identity))
        assert added.status == 0, added.stderr
        inside = await alice.run("alice", "ssh-add -L", options=("-A", *with_agent))
        assert alice.public_line.encode() in inside.stdout
        assert (await alice.run("alice", "echo $SSH_AUTH_SOCK", options=with_agent)).stdout == b"\n"
    finally:
        agent.kill()
        await agent.wait()


async def test_the_machines_own_end_ends_the_session_with_a_sentence(place: Place) -> None:
    alice = await place.client("alice")
    client = await alice.start("alice", "echo on; exec sleep 60")
    assert client.stdout is not None
    await read_until(client.stdout, b"on\n")
    await place.attach.__aexit__(None, None, None)
    _, stderr = await asyncio.wait_for(client.communicate(), 30)
    assert client.returncode == 255
    assert b"the connection to the workspace is lost" in stderr


async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello\n")
    writer.close()
    await writer.wait_closed()


async def fetch(port: int, *, tries: int = 100) -> bytes:
    """What a port says once it listens."""
    for number in range(1, tries + 1):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if number == tries:
                raise
            await asyncio.sleep(0.05)
            continue
        said = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        await writer.wait_closed()
        return said
    raise AssertionError


async def is_closed(port: int) -> bool:
    try:
        await fetch(port, tries=1)
    except ConnectionRefusedError:
        return True
    return False


async def key_of(place: Place, user: str) -> asyncssh.SSHKey:
    return (await place.client(user)).key


async def test_nothing_is_sent_but_what_is_said(place: Place) -> None:
    alice = await place.client("alice")
    ran = await alice.run("alice", "echo hello", options=("-o", "LogLevel=DEBUG3"))
    assert "debug1: Exit status 0" in ran.stderr
    assert "Received SSH2_MSG_IGNORE" not in ran.stderr


async def test_openssh_gets_a_fast_cipher_and_others_one_that_they_have(place: Place) -> None:
    alice = await place.client("alice")
    ran = await alice.run("alice", "true", options=("-v", "-o", "LogLevel=DEBUG1"))
    assert "server->client cipher: aes128-gcm@openssh.com" in ran.stderr
    assert (await alice.run("alice", "echo in", options=("-c", "aes256-ctr"))).stdout == b"in\n"
    async with place.connect("alice", alice.key, encryption_algs=["aes256-ctr"]) as connection:
        assert (await connection.run("echo in")).stdout == "in\n"


async def test_a_slow_reader_holds_up_the_program_and_fills_nothing(place: Place) -> None:
    alice = await place.client("alice")
    made = place.directory("alice") / "made"
    line = "i=0; while [ $i -lt 80 ]; do head -c 1000000 /dev/zero; i=$((i+1)); echo $i > made; done"
    process = await alice.start("alice", line)
    assert process.stdout is not None
    taken = 0
    while taken < 10_000_000:
        taken += len(await asyncio.wait_for(process.stdout.read(65536), 30))
        await asyncio.sleep(0.005)
    assert int(made.read_text()) < 10 + 15
    await end(process)
