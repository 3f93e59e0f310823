"""The whole hub as one container, by the command line of the first ML Hub, on the engine whose socket it is given."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mlhub_standalone import volumes
from mlhub_standalone.engine import Container
from tests.standalone.old_hub import OldData
from tests.support.engine_cli import docker, everything_labelled, inspect, labelled, missing, new_hub, wipe
from tests.support.hub_client import HubClient, Session
from tests.support.kernel import run_cell
from tests.support.ports import free_port
from tests.support.stack import ADMIN_PASSWORD, API_TOKEN, wait_until

pytestmark = pytest.mark.timeout(400)

IMAGE = "mlhub-standalone"
READY_WITHIN, UP_WITHIN = 120.0, 120.0
SOCKET = "/var/run/docker.sock"


_DIAL = """
import os, socket, urllib.parse
for port in (urllib.parse.urlsplit(os.environ["JUPYTERHUB_API_URL"]).port, 8080, 2222):
    try:
        with socket.create_connection(("mlhub", port), 5) as asked:
            asked.sendall(b"GET /hub/api HTTP/1.0\\r\\n\\r\\n")
            print("open" if asked.recv(1) else "shut")
    except OSError:
        print("shut")
"""
"""Asked in a workspace: whether the hub's API, the site and the gateway for SSH answer."""


class OneContainer:
    """A hub in a container, with a volume of data that outlives it."""

    def __init__(self, **environment: str) -> None:
        self.name, self.pool = new_hub()
        self.data = f"{self.name}-data"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.hub = HubClient(self.url, API_TOKEN)
        self._environment = environment
        self._sessions: list[Session] = []

    def run(self, *, socket: str = SOCKET) -> str:
        """`docker run`; returns the new container's id."""
        environment = {
            "HUB_NAME": self.name,
            "MLHUB_SPAWNER_WORKER_NETWORK_POOL": self.pool,
            "MLHUB_API_TOKEN": API_TOKEN,
            **self._environment,
        }
        given = [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
        mounts = ["-v", f"{socket}:/var/run/docker.sock", "-v", f"{self.data}:/data"]
        return docker(
            "run", "-d", "--name", self.name, "-p", f"127.0.0.1:{self.port}:8080", *mounts, *given, IMAGE, within=120
        )

    def up(self) -> str:
        """The same, until it answers."""
        container = self.run()
        try:
            wait_until(self.answers, within=UP_WITHIN, every=0.5)
        except TimeoutError:
            raise RuntimeError(self.logs()) from None
        return container

    def answers(self) -> bool:
        """People could log in."""
        assert inspect(self.name)["State"]["Running"], self.logs()
        try:
            return httpx.get(f"{self.url}/hub/health", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """What an engine does to a container that is to be replaced."""
        docker("stop", "-t", "30", self.name, within=90)
        docker("rm", self.name)

    def session(self, user: str, password: str) -> Session:
        """Somebody who has logged in."""
        session = Session(self.url)
        self._sessions.append(session)
        answer = session.login(user, password)
        assert answer.status_code == 200, answer.text
        return session

    def ready(self, user: str, server: str = "") -> None:
        """Wait for a workspace."""
        try:
            wait_until(lambda: self.hub.is_ready(user, server), within=READY_WITHIN, every=0.3)
        except TimeoutError:
            raise RuntimeError(self.logs()) from None

    def logs(self) -> str:
        """What the container has written."""
        run = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, timeout=30, check=False)
        return run.stdout + run.stderr

    def wipe(self) -> None:
        """Leave nothing, however the test went."""
        self.hub.close()
        for session in self._sessions:
            session.close()
        docker("rm", "-f", self.name, check=False)
        wipe(self.name)
        docker("volume", "rm", self.data, check=False)


@pytest.fixture(scope="module", autouse=True)
def _images() -> None:
    if (reason := missing(IMAGE, "mlhub-workspace")) is not None:
        pytest.skip(reason)


@pytest.fixture
def hub() -> Iterator[OneContainer]:
    hub = OneContainer(MLHUB_ADMIN_PASSWORD=ADMIN_PASSWORD)
    try:
        yield hub
    finally:
        hub.wipe()


def test_a_new_container_adopts_what_the_old_one_left_running(hub: OneContainer) -> None:
    first = hub.up()
    hub.hub.add_user("alice")
    assert hub.hub.spawn("alice", "lab").status_code in {201, 202}
    hub.ready("alice", "lab")
    workspace = f"ws-alice-{hub.name}-lab"
    assert run_cell(hub.hub, "alice", "print(6 * 7)", server="lab").strip() == "42"
    # It is on the networks of all users: no way to another one, nor to the site through which others' would be found.
    assert docker("exec", hub.name, "cat", "/proc/sys/net/ipv4/ip_forward") == "0"
    assert run_cell(hub.hub, "alice", _DIAL, server="lab").split() == ["open", "shut", "shut"]
    # Every line is an entry of a log, the services' among them.
    lines = hub.logs().splitlines()
    assert all(line.startswith("{") for line in lines), [line for line in lines if not line.startswith("{")]
    assert {f'"service": "{name}"' in hub.logs() for name in ("standalone", "hub", "spawner-worker")} == {True}

    before = inspect(workspace)["State"]
    hub.stop()
    assert inspect(workspace)["State"] == before
    # Something else takes the address that the hub's container had.
    placeholder = docker("run", "-d", "mlhub-workspace", "sleep", "600")
    try:
        assert hub.up() != first
        hub.ready("alice", "lab")
        assert inspect(workspace)["State"]["StartedAt"] == before["StartedAt"]
        assert run_cell(hub.hub, "alice", "print(6 * 7)", server="lab").strip() == "42"
    finally:
        docker("rm", "-f", placeholder)
    # The workspace finds the hub under the name it always had.
    code = "import os, urllib.request as r; print(r.urlopen(os.environ['JUPYTERHUB_API_URL']).status)"
    assert run_cell(hub.hub, "alice", code, server="lab").strip() == "200"
    assert "ws-alice" in docker("exec", hub.name, "mlhub", "status")

    # Its end is the container's, in which this very command runs.
    docker("exec", hub.name, "mlhub", "down", within=120, check=False)
    wait_until(lambda: not inspect(hub.name)["State"]["Running"], within=30)
    assert labelled("container", hub.name) == []
    docker("rm", "-f", hub.name)
    hub.up()
    assert hub.hub.delete("alice", "lab").status_code in {202, 204}
    wait_until(lambda: not everything_labelled(hub.name), within=60)


def test_a_socket_that_does_not_answer_ends_it_with_a_sentence(hub: OneContainer) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dead = Path(folder) / "dead.sock"
        dead.touch()
        hub.run(socket=str(dead))
        wait_until(lambda: not inspect(hub.name)["State"]["Running"], within=60)
    assert inspect(hub.name)["State"]["ExitCode"] == 1
    assert "mlhub: no Docker engine answers at unix:///var/run/docker.sock" in hub.logs()


@pytest.fixture
def moved(tmp_path: Path) -> Iterator[OneContainer]:
    """What an old hub left: its data, a volume with a file, its network, containers that have ended."""
    hub = OneContainer(DEFAULT_WORKSPACE_PORT="8888", START_CHP="true")
    try:
        _leave_behind(hub, tmp_path)
        yield hub
    finally:
        docker("rm", "-f", f"{hub.name}-filler", check=False)
        docker("rmi", f"{hub.name}/ml-workspace:0.8.7", check=False)
        hub.wipe()
        docker("volume", "rm", f"{hub.name}-own", check=False)


def _leave_behind(hub: OneContainer, folder: Path) -> None:
    image = f"{hub.name}/ml-workspace:0.8.7"
    docker("tag", "mlhub-workspace", image)
    old = OldData(folder / "old")
    old.sign_up("admin", "the-admins-password")
    old.come_in("admin", admin=True)
    old.sign_up("Foo.Bar", "foo-bars-password")
    old.come_in("foo0bar")
    old.start("foo0bar", "GPU1", {"image": image, "mem_limit": "1", "is_mount_volume": "on", "env": {}})

    def labels(server: str) -> list[str]:
        values = {"origin": hub.name, "user": "foo0bar", "server_name": server}
        return [word for name, value in values.items() for word in ("--label", f"mlhub.{name}={value}")]

    volume = f"ws-foo0bar-{hub.name}-GPU1"
    docker("volume", "create", *labels("GPU1"), volume)
    docker("network", "create", *labels(""), f"{hub.name}-foo0bar")
    default = f"ws-foo0bar-{hub.name}"
    write = "mkdir /tmp/x && echo for years > /tmp/x/own.txt && cp -r /tmp/x /workspace"
    docker("run", "--name", default, "-u", "0", *labels(""), image, "sh", "-c", write)
    docker("create", "--name", f"{default}-lab", *labels("lab"), "-v", f"{hub.name}-own:/workspace", image)
    shutil.copytree(old.folder, folder / "data")
    (folder / "data" / "result.txt").write_text("of years")
    # The engine has no other way into a volume.
    docker("create", "--name", f"{hub.name}-filler", "-v", f"{hub.data}:/a", "-v", f"{volume}:/b", "mlhub-workspace")
    docker("cp", f"{folder / 'data'}/.", f"{hub.name}-filler:/a")
    docker("cp", f"{folder / 'data' / 'result.txt'}", f"{hub.name}-filler:/b/result.txt")
    docker("rm", f"{hub.name}-filler")


def test_it_takes_over_what_the_first_ml_hub_left(moved: OneContainer) -> None:
    moved.up()
    said = moved.logs()
    assert "foo0bar: account, user, default workspace, workspace GPU1" in said
    assert "START_CHP=true: HAProxy has taken the place" in said
    assert f"foo0bar: container ws-foo0bar-{moved.name}, put aside as ws-foo0bar-{moved.name}.before" in said
    assert f"the old container ws-foo0bar-{moved.name}-lab has its files in {moved.name}-own, found here as" in said
    user = moved.session("foo0bar", "foo-bars-password")
    assert user.post("/hub/workspaces/start", form="/hub/home", user="foo0bar", server="GPU1").status_code == 200
    moved.ready("foo0bar", "GPU1")
    (made,) = [inspect(name) for name in labelled("container", moved.name) if not name.endswith(".before")]
    assert made["Config"]["Image"] == f"{moved.name}/ml-workspace:0.8.7"
    assert [(mount["Name"], mount["Destination"]) for mount in made["Mounts"]] == [
        (f"ws-foo0bar-{moved.name}-GPU1", "/workspace")
    ]
    # Not in the old network, which no rule guards.
    assert f"{moved.name}-foo0bar" not in made["NetworkSettings"]["Networks"]
    code = "print(open('/workspace/result.txt').read())"
    assert run_cell(moved.hub, "foo0bar", code, server="GPU1").strip() == "of years"
    # The default workspace had no volume: what its container alone held is in one now, and there as well.
    user.post("/hub/workspaces/start", form="/hub/home", user="foo0bar", server="")
    moved.ready("foo0bar")
    assert run_cell(moved.hub, "foo0bar", "print(open('/workspace/own.txt').read())").strip() == "for years"
    assert inspect(f"ws-foo0bar-{moved.name}.before")["State"]["Status"] == "exited"


def test_what_a_container_of_another_hub_alone_holds_is_copied_by_the_command_of_the_report() -> None:
    hub, _ = new_hub()
    container = Container(f"id-{hub}", f"ws-alice-{hub}-before", "alice", "", "mlhub-workspace", "exited", "")
    volume = f"ws-alice-{hub}"
    write = "mkdir /workspace && echo for years > /workspace/own.txt && chown -R 1234 /workspace"
    try:
        docker("run", "--name", container.name, "-u", "0", "mlhub-workspace", "sh", "-c", write)
        command = volumes.unpack_command(container, "/workspace", volume, hub, "mlhub-workspace")
        subprocess.run(["sh", "-c", command], check=True, timeout=60, stdin=subprocess.DEVNULL)
        look = "cat /workspace/own.txt; stat -c %u /workspace /workspace/own.txt"
        found = docker("run", "--rm", "-v", f"{volume}:/workspace", "mlhub-workspace", "sh", "-c", look)
        assert found.split() == ["for", "years", "1234", "1234"]
        assert volume in labelled("volume", hub)
    finally:
        docker("rm", "-f", container.name, check=False)
        docker("volume", "rm", volume, check=False)
