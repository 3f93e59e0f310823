"""Workspaces to enter through an attach endpoint: one of this machine, and one in a container."""

import asyncio
import contextlib
import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from mlhub_spawner_worker.attach import AttachServer
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.exec import ContainerEntry
from mlhub_spawner_worker.backends.process import LocalEntry
from mlhub_spawner_worker.entry import Entry
from tests.support.openssh import OpenSsh

NAME = "ws-alice-test"
BARE_IMAGE = "debian:bookworm-slim"
"""Has shells, and neither python3 nor an SFTP server."""
PYTHON_IMAGE = "mlhub-workspace"
ENGINE_URL = "unix:///var/run/docker.sock"


@dataclass
class Place:
    """A server with one workspace, and the gateway's client."""

    server: AttachServer
    gateway: OpenSsh
    entries: dict[str, Entry]
    cwd: str
    container: str | None = None

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
        prefix = ["docker", "exec", self.container] if self.container else []
        process = await asyncio.create_subprocess_exec(
            *prefix, "sh", "-c", line, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        said, _ = await process.communicate()
        return said.decode()


@asynccontextmanager
async def serve(folder: Path, entry: Entry, cwd: str, *, container: str | None = None) -> AsyncIterator[Place]:
    """An attach endpoint with one workspace."""
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
        yield Place(server, gateway, entries, cwd, container)


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


@asynccontextmanager
async def container_place(folder: Path, container: str, home: str | None = "/work") -> AsyncIterator[Place]:
    """An endpoint before a container that runs."""
    engine = Engine(ENGINE_URL, "test")
    await engine.open()
    try:
        entry = ContainerEntry(engine, container, home=home)
        async with serve(folder, entry, home or "/", container=container) as place:
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
