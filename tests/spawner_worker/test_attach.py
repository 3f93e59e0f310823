"""The attach endpoint with the OpenSSH client, before a workspace of this machine and before one in a container."""

import asyncio
import hashlib
import os
import random
from pathlib import Path

import asyncssh
import pytest

from mlhub_spawner_worker.attach import AttachServer
from mlhub_spawner_worker.backends.process import LocalEntry
from mlhub_spawner_worker.entry import Arrived, Caller, Child, Client, Entry, Link, Listener, Order
from tests.support.attach_places import (
    NAME,
    Place,
    local_entry,
)
from tests.support.openssh import OpenSsh, execute
from tests.support.waiting import until_async


async def test_a_command_has_its_streams_apart_its_status_and_its_directory(place: Place) -> None:
    ran = await place.gateway.run(NAME, "pwd; echo error >&2; exit 7")
    assert (ran.status, ran.stdout, ran.stderr) == (7, f"{place.cwd}\n".encode(), "error\n")


async def test_the_environment_is_the_workspaces_with_little_of_the_clients(place: Place) -> None:
    options = ("-o", "SetEnv=LC_MONETARY=de EVIL=1 LD_PRELOAD=x COLORTERM=truecolor TERM=vt52")
    seen = dict(
        line.partition("=")[::2]
        for line in (await place.gateway.run(NAME, "env", options=options)).stdout.decode().split("\n")
    )
    assert seen["SECRET_OF_MINE"] == "yes"
    assert seen["MLHUB_WORKSPACE"] == NAME
    assert (seen["LC_MONETARY"], seen["COLORTERM"], seen["TERM"]) == ("de", "truecolor", "vt52")
    assert not {"EVIL", "LD_PRELOAD", "VIRTUAL_ENV", "PYTEST_CURRENT_TEST"} & seen.keys()


async def test_megabytes_pass_both_ways_unchanged_and_end_with_the_input(place: Place) -> None:
    data = random.Random(1).randbytes(20_000_000)
    back = await place.gateway.run(NAME, "cat", stdin=data)
    assert (back.status, len(back.stdout)) == (0, len(data))
    assert hashlib.sha256(back.stdout).digest() == hashlib.sha256(data).digest()


async def test_a_slow_reader_loses_nothing(place: Place) -> None:
    data = random.Random(2).randbytes(6_000_000)
    ran = await place.gateway.run(NAME, "sleep 1; sha256sum", stdin=data)
    assert ran.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


async def test_output_after_the_end_of_input_still_arrives(place: Place) -> None:
    ran = await place.gateway.run(NAME, "cat; echo after; echo more >&2", stdin=b"before\n")
    assert (ran.stdout, ran.stderr) == (b"before\nafter\n", "more\n")


async def test_a_shell_reads_its_commands_from_the_input(place: Place) -> None:
    ran = await place.gateway.run(NAME, stdin=b"echo one\nexit 3\n", options=("-T",))
    assert (ran.status, ran.stdout) == (3, b"one\n")


async def test_a_command_that_is_killed_ends_with_its_signal(local: Place) -> None:
    async with local.connect() as connection:
        result = await connection.run("kill -KILL $$")
        assert result.exit_signal is not None
        assert result.exit_signal[0] == "KILL"


async def test_a_client_sends_signals(place: Place) -> None:
    async with (
        place.connect() as connection,
        connection.create_process("trap 'echo got; exit 5' USR1; echo on; while :; do sleep 0.05; done") as process,
    ):
        assert await process.stdout.readline() == "on\n"
        process.send_signal("USR1")
        assert await process.stdout.readline() == "got\n"
        await process.wait(timeout=20)
        assert process.exit_status == 5


async def test_a_terminal_has_size_type_and_modes_and_follows_the_client(place: Place) -> None:
    async with (
        place.connect() as connection,
        connection.create_process(
            "trap 'stty size' WINCH; stty size; stty -a | grep -o -- '-\\?echo '; echo $TERM; read x; read y; exit 4",
            term_type="vt220",
            term_size=(101, 37),
            term_modes={asyncssh.PTY_ECHO: 0},
        ) as process,
    ):
        assert [(await process.stdout.readline()).strip() for _ in range(3)] == ["37 101", "-echo", "vt220"]
        process.change_terminal_size(90, 20)
        assert (await process.stdout.readline()).strip() == "20 90"
        process.stdin.write("\n\n")
        await process.wait(timeout=20)
        assert process.exit_status == 4


async def test_a_terminal_without_a_command_is_a_login_shell(place: Place) -> None:
    ran = await place.gateway.run(NAME, stdin=b'echo "$0,$-,$SSH_TTY,$PWD,"; exit 5\n', options=("-tt",))
    flags, terminal, directory = ran.stdout.decode().split("\n")[-2].split(",")[1:4]
    assert (ran.status, "i" in flags, directory) == (5, True, place.cwd)
    assert terminal.startswith("/dev/pts/")


async def test_control_c_reaches_the_program_of_a_terminal(place: Place) -> None:
    async with (
        place.connect() as connection,
        connection.create_process(
            "echo on; exec sleep 60",
            term_type="xterm",
            # As every terminal of OpenSSH has them.
            term_modes={asyncssh.PTY_VINTR: 3, asyncssh.PTY_VERASE: 127, asyncssh.PTY_VEOF: 4},
        ) as process,
    ):
        assert (await process.stdout.readline()).strip() == "on"
        process.stdin.write("\x03")
        await process.wait(timeout=20)
        # The engine tells no signal from the status that shells make of it.
        assert process.exit_signal[0] == "INT" if process.exit_signal else process.exit_status == 130


async def test_nobody_but_the_gateway_gets_in(local: Place, tmp_path: Path) -> None:
    stranger = OpenSsh(tmp_path / "stranger", local.gateway.port)
    ran = await stranger.run(NAME, "echo in")
    assert (ran.status, ran.stdout) == (255, b"")
    assert "Permission denied (publickey)" in ran.stderr


async def test_without_a_key_of_the_gateway_nobody_gets_in(tmp_path: Path) -> None:
    client = OpenSsh(tmp_path / "client", 0)
    entries: dict[str, Entry] = {NAME: local_entry(tmp_path / "workspace")}
    async with AttachServer(
        host="127.0.0.1", port=0, host_key_file=tmp_path / "key", gateway_public_key=None, enter=entries.get
    ) as server:
        client.port = server.address.port
        ran = await client.run(NAME, "echo in")
    assert "Permission denied" in ran.stderr


async def test_a_workspace_that_is_not_running_says_so_also_to_a_connection_that_was_in(place: Place) -> None:
    async with place.connect() as connection:
        assert (await connection.run("echo in")).stdout == "in\n"
        del place.entries[NAME]
        with pytest.raises(asyncssh.ChannelOpenError, match="workspace ws-alice-test is not running"):
            await connection.run("echo in")


@pytest.mark.parametrize("options", [(), ("-tt",)], ids=["pipes", "terminal"])
async def test_what_runs_is_hung_up_when_the_client_goes_and_what_left_stays(
    place: Place, options: tuple[str, ...]
) -> None:
    line = "setsid sh -c 'echo $$; exec sleep 61 </dev/null >/dev/null 2>&1' & read go; echo $$; exec sleep 60"
    client = await place.gateway.start(NAME, line, options=options)
    assert client.stdout is not None
    assert client.stdin is not None
    stays = int(await client.stdout.readline())
    client.stdin.write(b"\n")
    if options:
        await client.stdout.readline()  # the terminal's echo
    goes = int(await client.stdout.readline())
    assert await place.is_alive(goes)
    try:
        client.kill()
        await client.communicate()
        await until_async(lambda: has_gone(place, goes))
        assert await place.is_alive(stays)
    finally:
        await place.inside(f"kill -KILL {stays}")


@pytest.mark.parametrize(
    ("line", "said"), [("echo on; exec yes", ""), ("echo on; yes; echo ended >&2", "ended\n")], ids=["it", "its-child"]
)
async def test_a_program_whose_output_nobody_reads_any_more_ends(place: Place, line: str, said: str) -> None:
    async with place.connect() as connection, connection.create_process(line) as process:
        assert await process.stdout.readline() == "on\n"
        # As the gateway passes it on, for `ssh workspace yes | head`.
        process.channel._send_request(b"eow@openssh.com")
        ended = await process.wait(timeout=20)
        assert ended.stderr == said


async def test_sftp_puts_gets_lists_and_removes(place: Place, tmp_path: Path) -> None:
    data = random.Random(3).randbytes(3_000_000)
    (tmp_path / "up").write_bytes(data)
    batch = tmp_path / "batch"
    batch.write_text(
        f"put {tmp_path}/up there\nmkdir folder\nrename there folder/moved\nln -s moved folder/link\n"
        f"chmod 600 folder/moved\nget folder/link {tmp_path}/down\nls -l folder\ndf\nrm folder/link\n"
    )
    command = ["sftp", *place.gateway.options, "-P", str(place.gateway.port), "-b", str(batch), f"{NAME}@127.0.0.1"]
    ran = await execute(*command)
    assert ran.status == 0, ran.stderr
    assert (tmp_path / "down").read_bytes() == data
    assert b"-rw-------" in ran.stdout
    assert (await place.inside(f"ls {place.cwd}/folder")).split() == ["moved"]
    await place.inside(f"rm -r {place.cwd}/folder")


async def test_scp_copies_folders_both_ways(place: Place, tmp_path: Path) -> None:
    (tmp_path / "folder" / "deeper").mkdir(parents=True)
    (tmp_path / "folder" / "deeper" / "file").write_bytes(data := random.Random(5).randbytes(1_000_000))
    scp = ["scp", *place.gateway.options, "-P", str(place.gateway.port), "-r"]
    up = await execute(*scp, str(tmp_path / "folder"), f"{NAME}@127.0.0.1:copied")
    assert up.status == 0, up.stderr
    down = await execute(*scp, f"{NAME}@127.0.0.1:copied/deeper", str(tmp_path / "back"))
    assert down.status == 0, down.stderr
    assert (tmp_path / "back" / "file").read_bytes() == data
    await place.inside(f"rm -r {place.cwd}/copied")


async def test_sftp_says_what_is_wrong(place: Place) -> None:
    async with place.connect() as connection, connection.start_sftp_client() as sftp:
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await sftp.stat("missing")
        await sftp.mkdir("full")
        async with sftp.open("full/file", "w") as file:
            await file.write("content")
        with pytest.raises(asyncssh.SFTPFailure):
            await sftp.rmdir("full")
        assert await sftp.realpath(".") == place.cwd


async def test_the_host_key_is_made_once_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "host_key"
    seen = []
    for _ in range(2):
        async with AttachServer(
            host="127.0.0.1", port=0, host_key_file=path, gateway_public_key=None, enter=lambda _: None
        ) as server:
            seen.append(server.address.host_key)
    assert seen[0] == seen[1]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_command_that_no_program_can_be_given_says_so(place: Place) -> None:
    async with place.connect() as connection, asyncio.timeout(20):
        ran = await connection.run("echo \0")
        assert ran.exit_status == 126
        assert ran.stderr


async def test_what_goes_wrong_inside_ends_one_channel_and_not_the_connection(local: Place) -> None:
    async with local.connect() as connection, asyncio.timeout(20):
        sound, local.entries[NAME] = local.entries[NAME], Broken()
        ran = await connection.run("true")
        assert (ran.exit_status, ran.stderr) == (126, "the workspace can't be entered now\r\n")
        with pytest.raises(asyncssh.ChannelOpenError, match="can't be reached"):
            await connection.open_connection("localhost", 4000)
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("localhost", 0, "127.0.0.1", 4000)
        local.entries[NAME] = sound
        assert (await connection.run("echo still")).stdout == "still\n"


class Broken:
    """A workspace whose backend has a fault."""

    @property
    def loopback(self) -> "Broken":
        return self

    async def run(self, order: Order, client: Client) -> Child:
        raise LookupError("a fault")

    async def connect(self, port: int, caller: Caller, *, host: str = "") -> Link:
        raise LookupError("a fault")

    async def listen(self, port: int, arrived: Arrived) -> Listener:
        raise LookupError("a fault")


async def test_a_command_without_a_directory_says_so(local: Place) -> None:
    local.entries[NAME] = LocalEntry(Path(local.cwd) / "gone", {"PATH": os.environ["PATH"]})
    ran = await local.gateway.run(NAME, "true")
    assert ran.status == 126
    assert "can't be started" in ran.stderr


async def test_each_child_enters_the_cgroup_before_its_program_runs(local: Place, tmp_path: Path) -> None:
    def enter(pid: int) -> None:
        (tmp_path / "entered").write_text(str(pid))

    local.entries[NAME] = LocalEntry(Path(local.cwd), {"PATH": os.environ["PATH"]}, enter_cgroup=enter)
    ran = await local.gateway.run(NAME, f"cat {tmp_path}/entered; echo; echo $$")
    entered, own = ran.stdout.split()
    assert entered == own


async def has_gone(place: Place, pid: int) -> bool:
    return not await place.is_alive(pid)


async def test_nothing_is_sent_but_what_is_said(local: Place) -> None:
    ran = await local.gateway.run(NAME, "echo hello", options=("-o", "LogLevel=DEBUG3"))
    assert "debug1: Exit status 0" in ran.stderr
    assert "Received SSH2_MSG_IGNORE" not in ran.stderr
