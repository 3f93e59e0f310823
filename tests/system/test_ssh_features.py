"""What people do with SSH, by the stock OpenSSH programs through the gateway, into a process and into a container.

The container is of an image with neither an SSH server nor one for SFTP. What the gateway itself decides is tested with
it, and how programs are run with the attach endpoint.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import pty
import random
import shlex
import shutil
import signal
import struct
import termios
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlhub_shared.bus import Bus
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.exec import ContainerEntry
from tests.ssh_gateway.place import Place, end, make_place, read_until
from tests.support.attach_places import ENGINE_URL, PYTHON_IMAGE, engine_problem, running_container
from tests.support.hub_api import scripted_hub
from tests.support.makers import workspace
from tests.support.nats_server import NatsServer
from tests.support.openssh import OpenSsh, Ran, execute
from tests.support.ports import free_port
from tests.support.waiting import until_async

BOOTSTRAP = r"""
set -e
cat > server.py <<'END'
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.path.encode() * 20000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print("listeningOn=%d" % server.server_port, flush=True)
server.serve_forever()
END
nohup python3 server.py >server.log 2>&1 </dev/null &
echo "pid=$!"
while ! grep -q listeningOn server.log; do sleep 0.05; done
cat server.log
"""
"""As an editor does it that works from afar: a server is put there and left running, and the port is told."""


@dataclass
class Site:
    """A gateway, one workspace behind it, and its owner's client."""

    place: Place
    alice: OpenSsh
    container: str | None
    folder: Path
    """On this machine, for what goes there and comes back."""

    async def run(self, *words: str, options: tuple[str, ...] = (), stdin: bytes = b"") -> Ran:
        return await self.alice.run("alice", *words, options=options, stdin=stdin)

    async def inside(self, line: str) -> str:
        """What a command says that is run in the workspace without SSH."""
        if self.container is not None:
            command = ["docker", "exec", "--workdir", "/work", self.container, "sh", "-c", line]
        else:
            command = ["sh", "-c", f"cd {self.place.directory('alice')} && {line}"]
        return (await execute(*command)).stdout.decode()

    @property
    def rsh(self) -> str:
        """For programs that call ssh themselves."""
        return shlex.join(["ssh", *self.alice.options, "-p", str(self.alice.port)])

    @contextlib.asynccontextmanager
    async def open(self, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A connection that forwards, once it does."""
        client = await self.alice.start("alice", "echo up; cat", options=("-o", "ExitOnForwardFailure=yes", *options))
        assert client.stdout is not None
        try:
            await read_until(client.stdout, b"up\n")
            yield client
        finally:
            await end(client)


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    if (problem := engine_problem(PYTHON_IMAGE)) is not None:
        pytest.skip(problem)
    with running_container(PYTHON_IMAGE) as name:
        yield name


@pytest.fixture(params=["process", "container"])
async def site(
    request: pytest.FixtureRequest, tmp_path: Path, nats_server: NatsServer, bus: Bus
) -> AsyncIterator[Site]:
    name = request.getfixturevalue("container") if request.param == "container" else None
    async with contextlib.AsyncExitStack() as stack:
        hub = await stack.enter_async_context(scripted_hub())
        hub.add_user("alice")
        place = await stack.enter_async_context(make_place(tmp_path / "place", nats_server, bus, hub))
        await place.put("alice")
        if name is not None:
            engine = Engine(ENGINE_URL, "test")
            await engine.open()
            stack.push_async_callback(engine.aclose)
            place.entries[workspace("alice", "").name] = ContainerEntry(engine, name, home="/work")
        await stack.enter_async_context(place.gateway())
        (tmp_path / "here").mkdir()
        yield Site(place, await place.client("alice"), name, tmp_path / "here")


def some_files(folder: Path) -> dict[str, bytes]:
    """A folder with files in it, whose names are hard to quote."""
    files = {"plain": b"text\n", "with space": random.Random(7).randbytes(300_000), "deeper/ümläut 'quoted'": b"x"}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return files


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_variables_that_the_client_may_send_arrive(site: Site) -> None:
    sent = ("-o", "SendEnv=LC_* EVIL", "-o", "SetEnv=LC_PAPER=de_DE.UTF-8 EVIL=1")
    assert (await site.run("echo $LC_PAPER$EVIL", options=sent)).stdout == b"de_DE.UTF-8\n"


async def test_a_terminal_follows_the_window_and_its_keys_interrupt(site: Site) -> None:
    ours, theirs = pty.openpty()
    _resize(ours, rows=31, columns=97)
    line = "trap 'stty size' WINCH; stty size; while sleep 0.1; do :; done"
    client = await asyncio.create_subprocess_exec(
        *site.alice.command("alice", line, options=("-tt",)),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    screen = asyncio.StreamReader()
    reading, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(screen), os.fdopen(os.dup(ours), "rb", 0)
    )
    try:
        await read_until(screen, b"31 97")
        _resize(ours, rows=22, columns=66)
        client.send_signal(signal.SIGWINCH)
        await read_until(screen, b"22 66")
        os.write(ours, b"\x03")
        # A shell that is interrupted ends by that signal, for which ssh has no status of its own.
        assert await asyncio.wait_for(client.wait(), 20) in (130, 255)
    finally:
        if client.returncode is None:
            client.kill()
        reading.close()
        os.close(ours)


@pytest.mark.parametrize("protocol", ["-s", "-O"], ids=["sftp", "rcp"])
async def test_scp_copies_a_folder_there_and_back_by_both_protocols(site: Site, protocol: str) -> None:
    files = some_files(site.folder / "sent")
    scp = ["scp", protocol, "-rp", *site.alice.options, "-P", str(site.alice.port)]
    up = await execute(*scp, str(site.folder / "sent"), "alice@127.0.0.1:copied")
    assert up.status == 0, up.stderr
    down = await execute(*scp, "alice@127.0.0.1:copied", str(site.folder / "back"))
    assert down.status == 0, down.stderr
    assert files_in(site.folder / "back") == files
    await site.inside("rm -r copied")


async def test_sftp_resumes_and_works_on_files(site: Site) -> None:
    data = random.Random(9).randbytes(3_000_000)
    (site.folder / "up").write_bytes(data)
    (site.folder / "down").write_bytes(data[:1_000_000])
    batch = site.folder / "batch"
    batch.write_text(
        f"put {site.folder}/up there\nreget there {site.folder}/down\nchmod 640 there\nln -s there link\n"
        "rename there moved\nls -l\nmkdir d\nrmdir d\nrm moved\nrm link\n"
    )
    port = ("-P", str(site.alice.port))
    ran = await execute("sftp", *site.alice.options, *port, "-b", str(batch), "alice@127.0.0.1")
    assert ran.status == 0, ran.stderr
    assert b"-rw-r-----" in ran.stdout
    assert (site.folder / "down").read_bytes() == data


async def test_rsync_sends_only_what_has_changed(site: Site) -> None:
    if not await site.inside("command -v rsync"):
        pytest.skip("the image of the workspace has no rsync: build it anew")
    files = some_files(site.folder / "sent")
    rsync = ["rsync", "--archive", "--delete", "--stats", "--rsh", site.rsh]
    for _ in range(2):
        up = await execute(*rsync, f"{site.folder}/sent/", "alice@127.0.0.1:synced")
        assert up.status == 0, up.stderr
    assert b"Number of regular files transferred: 0" in up.stdout
    await site.inside("rm synced/plain")
    down = await execute(*rsync, "alice@127.0.0.1:synced/", f"{site.folder}/back")
    assert down.status == 0, down.stderr
    assert files_in(site.folder / "back") == {name: data for name, data in files.items() if name != "plain"}
    await site.inside("rm -r synced")


async def test_a_folder_of_the_workspace_is_mounted(site: Site) -> None:
    if shutil.which("sshfs") is None or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("no sshfs, or no /dev/fuse, on this machine")
    mounted = site.folder / "mounted"
    mounted.mkdir()
    ran = await execute("sshfs", "-o", f"ssh_command={site.rsh}", "alice@127.0.0.1:", str(mounted))
    if "fusermount" in ran.stderr:
        pytest.skip(f"nothing can be mounted here: {ran.stderr.strip()}")
    assert ran.status == 0, ran.stderr
    try:
        # By other processes: the gateway lives in this one, and would wait for itself.
        data = random.Random(8).randbytes(1_000_000)
        (site.folder / "data").write_bytes(data)
        copied = await execute("cp", str(site.folder / "data"), str(mounted / "through"))
        assert copied.status == 0, copied.stderr
        assert (await site.inside("sha256sum <through")).split()[0] == hashlib.sha256(data).hexdigest()
        assert (await execute("rm", str(mounted / "through"))).status == 0
    finally:
        assert (await execute("fusermount", "-u", str(mounted))).status == 0


async def test_an_editor_puts_its_server_there_and_talks_with_it_over_many_channels(site: Site) -> None:
    told = await site.run("bash", "-s", options=("-T",), stdin=BOOTSTRAP.encode())
    assert told.status == 0, told.stderr
    pid, port = (int(line.partition("=")[2]) for line in told.stdout.decode().split())
    socks, local = free_port(), free_port()
    try:
        async with site.open("-D", f"127.0.0.1:{socks}", "-L", f"127.0.0.1:{local}:127.0.0.1:{port}"):
            by_name = ("curl", "-sS", "--noproxy", "", "--socks5-hostname", f"127.0.0.1:{socks}")
            dynamic = [execute(*by_name, f"http://localhost:{port}/{number:03}") for number in range(20)]
            by_port = ("curl", "-sS", "--noproxy", "*")
            fixed = [execute(*by_port, f"http://127.0.0.1:{local}/{number:03}") for number in range(20)]
            for ways in (dynamic, fixed):
                for number, ran in enumerate(await asyncio.gather(*ways)):
                    assert ran.stdout == f"/{number:03}".encode() * 20000, ran.stderr
    finally:
        await site.inside(f"kill {pid}")


async def test_a_port_leads_back_and_one_can_jump_through_the_workspace_to_it(site: Site) -> None:
    port = free_port()
    lines = [line for line in zip(*[iter(site.alice.options[4:])] * 2, strict=True)]
    common = "\n".join(f"  {value.replace('=', ' ', 1)}" for _, value in lines)
    config = site.folder / "config"
    config.write_text(
        f"Host gateway\n  HostName 127.0.0.1\n  Port {site.alice.port}\n  User alice\n"
        f"Host behind\n  HostName localhost\n  Port {port}\n  User alice\n  ProxyJump gateway\n"
        f"Host *\n  IdentityFile {site.alice.identity}\n{common}\n"
    )
    async with site.open("-R", f"{port}:127.0.0.1:{site.alice.port}"):
        jumped = await execute("ssh", "-F", str(config), "behind", "pwd")
        assert jumped.status == 0, jumped.stderr
        direct = await execute("ssh", "-F", str(config), "-J", "gateway", "-p", str(port), "alice@localhost", "pwd")
        assert direct.stdout == jumped.stdout == (await site.run("pwd")).stdout


async def test_the_agent_comes_along_only_if_it_is_forwarded(site: Site) -> None:
    socket = site.folder / "agent"
    agent = await asyncio.create_subprocess_exec("ssh-agent", "-D", "-a", socket, stdout=asyncio.subprocess.DEVNULL)
    try:

        async def has_key() -> bool:
            environment = ("env", f"SSH_AUTH_SOCK={socket}")
            return (await execute(*environment, "ssh-add", str(site.alice.identity))).status == 0

        await until_async(has_key)
        with_agent = ("-o", f"IdentityAgent={socket}")
        assert (await site.run("echo $SSH_AUTH_SOCK", options=with_agent)).stdout == b"\n"
        listed = await site.run("ssh-add -L", options=("-A", *with_agent))
        assert site.alice.public_line.encode() in listed.stdout
    finally:
        agent.kill()
        await agent.wait()


async def test_one_connection_is_shared_and_ports_are_added_to_it(site: Site) -> None:
    shared = ("-o", f"ControlPath={site.folder}/mux")
    local = free_port()
    async with site.open("-M", *shared), await asyncio.start_server(_greet, "127.0.0.1", 0) as server:
        runs = await asyncio.gather(*(site.run(f"cat; exit {n}", options=shared, stdin=b"%d" % n) for n in range(1, 6)))
        assert [(ran.status, ran.stdout) for ran in runs] == [(n, b"%d" % n) for n in range(1, 6)]
        own = server.sockets[0].getsockname()[1]
        added = await site.run(options=("-O", "forward", "-R", f"{local}:127.0.0.1:{own}", *shared))
        assert added.status == 0, added.stderr
        ask = f"import socket; print(socket.create_connection(('127.0.0.1', {local})).recv(9).decode())"
        assert (await site.run(f"python3 -c {shlex.quote(ask)}", options=shared)).stdout == b"hello\n"


async def test_what_nobody_reads_any_more_ends_at_once(site: Site) -> None:
    line = f"{shlex.join(site.alice.command('alice', 'exec yes nobody-reads-this'))} | head -n 2"
    ran = await execute("sh", "-c", line, within=10)
    assert ran.stdout == b"nobody-reads-this\n" * 2
    await until_async(lambda: runs_not(site, "yes nobody-reads-this"), within=5)


async def runs(site: Site, command: str) -> bool:
    """Whether a program with exactly these words runs in the workspace."""
    words = command.replace(" ", "\\000") + "\\000"
    seen = await site.inside(
        f"printf '{words}' >.wanted; for f in /proc/[0-9]*/cmdline; do cmp -s .wanted $f && echo y; done"
    )
    return "y" in seen


async def runs_not(site: Site, command: str) -> bool:
    return not await runs(site, command)


async def _greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    writer.close()


def _resize(terminal: int, *, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
