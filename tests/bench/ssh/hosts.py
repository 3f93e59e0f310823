"""Machines to get into, side by side: a workspace of ours, and a server behind a jump host."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from tests.bench.bench import Bench
from tests.bench.deployment import Deployment
from tests.bench.peers.open_ssh import Sshd
from tests.bench.processes import Child
from tests.bench.ssh.client import SshClient
from tests.support import workspace_server
from tests.support.hub_client import Session

OURS, JUMP = "ours", "jump"
"""Names of the hosts in the client's configuration; the second one is OpenSSH all the way."""
USER = "admin"
"""The one user with a password."""


@dataclass(frozen=True)
class OurWay:
    """A deployment with a workspace that is ready; `ssh ours` enters it."""

    deployment: Deployment
    client: SshClient
    gateway: Child
    worker: Child

    def add(self, name: str, options: Mapping[str, str]) -> None:
        """Another name for the workspace, with options of the client."""
        self.client.add(name, port=self.deployment.ports["ssh"], user=USER, options=options)


@dataclass(frozen=True)
class JumpWay:
    """A machine behind another one; `ssh jump` enters it."""

    client: SshClient
    hop: Sshd
    target: Sshd

    def add(self, name: str, options: Mapping[str, str]) -> None:
        """Another name for the machine, with options of the client for both servers."""
        self.client.add(f"{name}-hop", port=self.hop.port, user=self.hop.user, options=options)
        through = {"ProxyJump": f"{name}-hop"}
        self.client.add(name, port=self.target.port, user=self.target.user, options=through | dict(options))


@asynccontextmanager
async def our_way(bench: Bench, *, settings: Mapping[str, object] | None = None) -> AsyncIterator[OurWay]:
    """`settings` of the services, beside those of every deployment."""
    folder = bench.folder / OURS
    # What serves in the workspace does not matter, as long as it is ready.
    command = f"{sys.executable} {workspace_server.__file__}"
    client = SshClient(folder / "client")
    async with Deployment(folder, settings={"MLHUB_SPAWNER_WORKER_COMMAND": command} | dict(settings or {})) as one:
        await one.start_proxy()
        worker = await one.start_worker()
        await one.start_hub()
        way = OurWay(one, client, await one.start_ssh_gateway(), worker)
        way.add(OURS, {})
        async with one.client() as hub:
            await asyncio.to_thread(_register, one, client)
            await hub.spawn(USER)
            try:
                await way.gateway.until(partial(_opens, client, OURS))
                yield way
            finally:
                # Workspaces outlive their worker.
                await hub.stop(USER)


@asynccontextmanager
async def jump_way(bench: Bench, client: SshClient) -> AsyncIterator[JumpWay]:
    """Two servers of OpenSSH that let this client in."""
    folder = bench.folder / "openssh"
    async with (
        Sshd("hop", folder, public_line=client.public_line) as hop,
        Sshd("target", folder, public_line=client.public_line) as target,
    ):
        way = JumpWay(client, hop, target)
        way.add(JUMP, {})
        await target.until(partial(_opens, client, JUMP))
        yield way


async def _opens(client: SshClient, host: str) -> bool:
    try:
        await client.seconds(host, "true")
    except RuntimeError:
        return False
    return True


def _register(deployment: Deployment, client: SshClient) -> None:
    """Do what the user does in the browser."""
    session = Session(deployment.public_url)
    try:
        session.login(USER, deployment.token)
        page = session.post("/hub/ssh-keys", action="add", label="bench", public_key=client.public_line)
        page.raise_for_status()
    finally:
        session.close()
