"""Ours: the services as they are shipped, on a nats-server configured as the launcher does it."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncssh

from mlhub_shared.bus import Bus, BusSettings
from mlhub_shared.contracts.workspace import WorkspaceRecord
from tests.bench.processes import Child, python
from tests.bench.rest import HubClient
from tests.bench.sampling import at_once
from tests.bench.ssh.keys import public_line, write_key
from tests.bench.stamps import Stamps
from tests.support.nats_server import PASSWORD, USER, NatsServer
from tests.support.ports import free_port

_PORTS = ("hub", "public", "probe", "api", "proxy", "worker", "cleanup", "gateway", "ssh")


class Deployment:
    """Starts what a measure asks for; everything ends with its context."""

    def __init__(self, folder: Path, *, hub: str = "bench", settings: Mapping[str, object] | None = None) -> None:
        """`settings`: variables of all services, beside the bench's own."""
        self.folder, self.hub, self._settings = folder, hub, settings or {}
        # The launcher's setting: what is acknowledged is on the disk.
        self.nats = NatsServer(folder / "nats", sync="always")
        self.token = secrets.token_hex(32)
        self.stamps = Stamps(folder / "commands.stamps")
        """Of every command that the scripted worker was handed."""
        self.ports = {name: free_port() for name in _PORTS}
        self._gateway_key = folder / "ssh-gateway" / "client_key"
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self.nats.start()
        write_key(self._gateway_key, asyncssh.generate_private_key("ssh-ed25519"))
        self._stack.push_async_callback(self.nats.stop)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def hub_url(self) -> str:
        return _url(self.ports["hub"])

    @property
    def public_url(self) -> str:
        return _url(self.ports["public"])

    def client(self) -> HubClient:
        """A client of the hub with every right."""
        return HubClient(self.hub_url, self.token)

    @asynccontextmanager
    async def bus(self) -> AsyncIterator[Bus]:
        """A connection of the bench's own."""
        settings = BusSettings(url=self.nats.url, hub=self.hub, service="bench", user=USER, password=PASSWORD)
        bus = await Bus.open(settings)
        try:
            yield bus
        finally:
            await bus.close()

    async def start_hub(self) -> Child:
        """The hub; its API answers when this returns."""
        child = Child(
            "hub",
            python("-m", "mlhub_hub"),
            self.folder,
            env=self._environment(
                MLHUB_HUB_LISTEN_PORT=self.ports["hub"],
                MLHUB_HUB_TARGET_URL=self.hub_url,
                MLHUB_HUB_PUBLIC_URL=self.public_url,
                MLHUB_HUB_PROBE_URL=_url(self.ports["probe"]),
                MLHUB_HUB_WORKSPACE_API_URL=_url(self.ports["api"]),
                MLHUB_HUB_DATA_DIR=self.folder / "hub",
                MLHUB_API_TOKEN=self.token,
                MLHUB_ADMIN_PASSWORD=self.token,
                MLHUB_CLEANUP_HUB_API_TOKEN=self.token[::-1],
                MLHUB_SSH_GATEWAY_HUB_API_TOKEN=self._turned(1),
                MLHUB_PROXY_HUB_API_TOKEN=self._turned(2),
            ),
        )
        await self._run(child, f"{self.hub_url}/hub/api/")
        return child

    async def start_proxy(self, *, hub_url: str | None = None) -> Child:
        """The proxy's agent with its HAProxy."""
        child = Child(
            "proxy",
            python("-m", "mlhub_proxy"),
            self.folder,
            env=self._environment(
                MLHUB_PROXY_HTTP_PORT=self.ports["proxy"],
                MLHUB_PROXY_PUBLIC_PORT=self.ports["public"],
                MLHUB_PROXY_PROBE_PORT=self.ports["probe"],
                MLHUB_PROXY_API_PORT=self.ports["api"],
                MLHUB_PROXY_HUB_URL=hub_url or self.hub_url,
                MLHUB_PROXY_HUB_API_URL=f"{self.hub_url}/hub/api",
                MLHUB_PROXY_HUB_API_TOKEN=self._turned(2),
                MLHUB_PROXY_DATA_DIR=self.folder / "proxy",
                MLHUB_PROXY_REPLICA="bench",
            ),
        )
        await self._run(child, f"{_url(self.ports['proxy'])}/ready")
        return child

    async def start_scripted_worker(self, endpoint_port: int) -> Child:
        """A worker that does at once, and only on paper, what it is told."""
        child = Child(
            "scripted-worker",
            python(
                "-m", "tests.bench.scripted_worker", f"--endpoint-port={endpoint_port}", f"--stamps={self.stamps.path}"
            ),
            self.folder,
            env=self._environment(MLHUB_SPAWNER_WORKER_HTTP_PORT=self.ports["worker"]),
        )
        await self._run(child, f"{_url(self.ports['worker'])}/ready")
        return child

    async def start_worker(self) -> Child:
        """A real worker, of processes unless the settings say otherwise, with a node of its own."""
        child = Child(
            "spawner-worker",
            python("-m", "mlhub_spawner_worker"),
            self.folder,
            env=self._environment(
                MLHUB_SPAWNER_WORKER_HTTP_PORT=self.ports["worker"],
                MLHUB_SPAWNER_WORKER_NODE="here",
                MLHUB_SPAWNER_WORKER_DATA_DIR=self.folder / "spawner-worker",
                MLHUB_SPAWNER_WORKER_PROBE_URL=_url(self.ports["probe"]),
                MLHUB_SPAWNER_WORKER_GATEWAY_PUBLIC_KEY=public_line(asyncssh.read_private_key(self._gateway_key)),
            ),
        )
        await self._run(child, f"{_url(self.ports['worker'])}/ready")
        return child

    async def start_ssh_gateway(self) -> Child:
        """The SSH gateway; workers let it in, whichever was there first."""
        child = Child(
            "ssh-gateway",
            python("-m", "mlhub_ssh_gateway"),
            self.folder,
            env=self._environment(
                MLHUB_SSH_GATEWAY_HTTP_PORT=self.ports["gateway"],
                MLHUB_SSH_GATEWAY_LISTEN_PORT=self.ports["ssh"],
                MLHUB_SSH_GATEWAY_HOST_KEY_FILE=self._gateway_key.with_name("host_key"),
                MLHUB_SSH_GATEWAY_CLIENT_KEY_FILE=self._gateway_key,
                MLHUB_SSH_GATEWAY_HUB_API_URL=f"{self.hub_url}/hub/api",
                MLHUB_SSH_GATEWAY_HUB_API_TOKEN=self._turned(1),
            ),
        )
        await self._run(child, f"{_url(self.ports['gateway'])}/ready")
        return child

    async def start_cleanup(self, *, warn_before: str) -> Child:
        """The clean-up service."""
        child = Child(
            "cleanup",
            python("-m", "mlhub_cleanup"),
            self.folder,
            env=self._environment(
                MLHUB_CLEANUP_HTTP_PORT=self.ports["cleanup"],
                MLHUB_CLEANUP_HUB_API_URL=f"{self.hub_url}/hub/api",
                MLHUB_CLEANUP_PUBLIC_URL=self.public_url,
                MLHUB_CLEANUP_HUB_API_TOKEN=self.token[::-1],
                MLHUB_CLEANUP_WARN_BEFORE=warn_before,
                CLEANUP_INTERVAL_SECONDS=-1,
            ),
        )
        await self._run(child, f"{_url(self.ports['cleanup'])}/ready")
        return child

    def _turned(self, number: int) -> str:
        """A token for a service."""
        return self.token[number:] + self.token[:number]

    async def _run(self, child: Child, ready_url: str) -> None:
        await self._stack.enter_async_context(child)
        await child.answers(ready_url)

    def _environment(self, **own: object) -> dict[str, str]:
        common = {
            "MLHUB_HUB_NAME": self.hub,
            "MLHUB_NATS_URL": self.nats.url,
            "MLHUB_NATS_USER": USER,
            "MLHUB_NATS_PASSWORD": PASSWORD,
            "MLHUB_LOG_LEVEL": "warning",
        }
        return common | {name: str(value) for name, value in (dict(self._settings) | own).items()}


async def put_records(bus: Bus, records: Sequence[WorkspaceRecord]) -> None:
    """Write many records, a few at a time."""

    async def put(record: WorkspaceRecord) -> int:
        return await bus.workspaces.put(record.name, record)

    async with asyncio.timeout(180):
        await at_once(64, records, put)


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"
