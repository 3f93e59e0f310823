"""Workspaces to enter through an attach endpoint: one of this machine, one in a container, and one in a pod."""

import asyncio
import contextlib
import copy
import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import asyncssh

from mlhub_spawner_worker.attach import AttachServer
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.exec import ContainerEntry
from mlhub_spawner_worker.backends.kubernetes.exec import KubernetesPlace, PodEntry
from mlhub_spawner_worker.backends.kubernetes.stream import StreamClient
from mlhub_spawner_worker.backends.process import LocalEntry
from mlhub_spawner_worker.entry import Entry
from tests.support.middle_box import MiddleBox
from tests.support.openssh import OpenSsh
from tests.support.pods import Pod, Pods, fake_pods, real_pods

NAME = "ws-alice-test"
BARE_IMAGE = "debian:bookworm-slim"
"""Has shells, and neither python3 nor an SFTP server."""
PYTHON_IMAGE = "mlhub-workspace"
ENGINE_URL = "unix:///var/run/docker.sock"

Command = Callable[[str], Awaitable[str]]
"""Runs a line of a shell and returns what it says."""


@dataclass
class Place:
    """A server with one workspace, and the gateway's client."""

    server: AttachServer
    gateway: OpenSsh
    entries: dict[str, Entry]
    cwd: str
    command: Command

    def connect(self, *, agent: Path | None = None) -> AbstractAsyncContextManager[asyncssh.SSHClientConnection]:
        return asyncssh.connect(
            "127.0.0.1",
            self.gateway.port,
            username=NAME,
            client_keys=[self.gateway.key],
            known_hosts=([asyncssh.import_public_key(self.server.address.host_key)], [], []),
            config=None,
            agent_path=None,
            agent_forwarding=str(agent) if agent else False,
        )

    async def is_alive(self, pid: int) -> bool:
        """Whether a process of the workspace, by its own number there, runs."""
        status = await self.inside(f"cat /proc/{pid}/stat")
        return bool(status) and status.rpartition(")")[2].split()[0] not in "ZX"

    async def inside(self, line: str) -> str:
        """What a command says that is run in the workspace by other ways than the attach endpoint's."""
        return await self.command(line)


async def here(line: str) -> str:
    """What a command of a shell says."""
    return await _said("sh", "-c", line)


async def _said(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    said, _ = await process.communicate()
    return said.decode()


@asynccontextmanager
async def serve(folder: Path, entry: Entry, cwd: str, command: Command = here) -> AsyncIterator[Place]:
    """An attach endpoint with one workspace, in which `command` runs one of a shell."""
    gateway = OpenSsh(folder / "gateway", 0)
    entries = {NAME: entry}
    async with AttachServer(
        host="127.0.0.1",
        port=0,
        host_key_file=folder / "data" / "host_key",
        gateway_public_key=gateway.public_line,
        enter=entries.get,
    ) as server:
        gateway.port = server.address.port
        yield Place(server, gateway, entries, cwd, command)


def local_entry(folder: Path, **environment: str) -> LocalEntry:
    """A workspace of this machine."""
    folder.mkdir(parents=True)
    own = {"PATH": os.environ["PATH"], "HOME": str(folder), "SHELL": "/bin/sh", "MLHUB_WORKSPACE": NAME}
    return LocalEntry(folder, own | environment)


@asynccontextmanager
async def local_place(folder: Path) -> AsyncIterator[Place]:
    """An endpoint before a workspace of this machine."""
    entry = local_entry(folder / "workspace", SECRET_OF_MINE="yes")
    async with serve(folder, entry, str(entry.cwd)) as place:
        yield place


def in_container(container: str) -> Command:
    """Runs commands in a container."""

    async def run(line: str) -> str:
        return await _said("docker", "exec", container, "sh", "-c", line)

    return run


@asynccontextmanager
async def pod_place(folder: Path, pods: Pods, **environment: str) -> AsyncIterator[Place]:
    """An endpoint before a pod of its own."""
    own = {"SECRET_OF_MINE": "yes", "SHELL": "/bin/sh", "MLHUB_WORKSPACE": NAME} | environment
    async with pods.running(**own) as pod, entered(pod) as entry:
        cwd = (await pod.inside("pwd")).strip()
        async with serve(folder, entry, cwd, pod.inside) as place:
            yield place


@asynccontextmanager
async def any_pod_place(folder: Path, *, is_fake: bool) -> AsyncIterator[Place]:
    """An endpoint before a pod of a cluster of its own, or of the one that the environment names."""
    async with fake_pods(folder) if is_fake else real_pods() as pods, pod_place(folder, pods) as place:
        yield place


@asynccontextmanager
async def entered(pod: Pod, *, silence: float = 60) -> AsyncIterator[PodEntry]:
    """The way into a pod."""
    client = StreamClient(pod.pods.configuration, silence=silence)
    try:
        yield PodEntry(KubernetesPlace(client, pod.pods.namespace, pod.name), home=None)
    finally:
        await client.aclose()


@asynccontextmanager
async def through(box: MiddleBox, pods: Pods, folder: Path, *, silence: float = 60) -> AsyncIterator[Place]:
    """An endpoint before a pod whose streams go through the box; commands to look inside do not."""
    address, configuration = urlsplit(str(pods.configuration.host)), copy.copy(pods.configuration)
    configuration.host = f"{address.scheme}://127.0.0.1:{box.port}"
    configuration.tls_server_name = address.hostname if address.scheme == "https" else None
    async with pods.running() as pod:
        behind = replace(pod, pods=replace(pods, configuration=configuration))
        async with entered(behind, silence=silence) as entry, serve(folder, entry, "", pod.inside) as place:
            yield place


@asynccontextmanager
async def container_place(folder: Path, container: str, home: str | None = "/work") -> AsyncIterator[Place]:
    """An endpoint before a container that runs."""
    engine = Engine(ENGINE_URL, "test")
    await engine.open()
    try:
        entry = ContainerEntry(engine, container, home=home)
        async with serve(folder, entry, home or "/", in_container(container)) as place:
            yield place
    finally:
        await engine.aclose()


def engine_problem(image: str) -> str | None:
    """Why there can be no container of this image here."""
    try:
        subprocess.run(["docker", "version"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return "no Docker engine answers"
    with contextlib.suppress(subprocess.SubprocessError):
        subprocess.run(["docker", "image", "inspect", image], check=True, capture_output=True, timeout=20)
        return None
    return f"the Docker engine has no image {image}"


@contextmanager
def running_container(image: str) -> Iterator[str]:
    """A container as workspaces are: without capabilities, with a directory of its user's own at /work."""
    name = f"mlhub-attach-{uuid.uuid4().hex[:8]}"
    command = [
        *("docker", "run", "--detach", "--init", "--name", name, "--hostname", "workspace"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none", "--pids-limit", "200"),
        *("--tmpfs", "/work:mode=1777", "--env", "SECRET_OF_MINE=yes", "--env", "SHELL=/bin/sh"),
        *("--env", f"MLHUB_WORKSPACE={NAME}", "--env", f"PATH=/opt/own/bin:{os.defpath}"),
        *("--entrypoint", "sleep", image, "infinity"),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    try:
        yield name
    finally:
        subprocess.run(["docker", "rm", "--force", name], check=False, capture_output=True, timeout=60)
