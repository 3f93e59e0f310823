"""Everything a gateway stands between: bus, hub, a worker's attach endpoint, and clients."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncssh
from fastapi import FastAPI
from pydantic import SecretStr

from mlhub_shared.bus import Bucket, Bus, Table
from mlhub_shared.bus.bucket import M
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.queries import RESOLVE_TARGET, ResolveTarget, Target
from mlhub_shared.contracts.services import SshKey, WorkerLease, ssh_key_key
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord
from mlhub_shared.runtime.clock import utc_now
from mlhub_shared.runtime.health import Health
from mlhub_shared.runtime.service import Runtime
from mlhub_spawner_worker.attach import AttachServer
from mlhub_spawner_worker.backends.process import LocalEntry
from mlhub_spawner_worker.entry import Entry
from mlhub_ssh_gateway.service import build
from mlhub_ssh_gateway.settings import SshGatewaySettings
from tests.conftest import bus_settings
from tests.support.hub_api import SERVICE_TOKEN, ScriptedHub
from tests.support.makers import NOW, record, workspace
from tests.support.nats_server import NatsServer
from tests.support.openssh import OpenSsh
from tests.support.ports import free_port
from tests.support.waiting import until

NODE = "node-1"


class WatchedBus(Bus):
    """A gateway's, which shows what the gateway follows."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.tables: dict[str, Table[Any]] = {}

    def start_table(self, bucket: Bucket[M]) -> Table[M]:
        table = self.tables[bucket.name] = super().start_table(bucket)
        return table


@dataclass
class Place:
    """The gateway's surroundings, which tests rearrange."""

    folder: Path
    nats_server: NatsServer
    bus: Bus
    hub: ScriptedHub
    attach: AttachServer
    settings: SshGatewaySettings
    entries: dict[str, Entry] = field(default_factory=dict)
    runtime: Runtime | None = None
    started: datetime = field(default_factory=utc_now)
    skipped: timedelta = timedelta()
    """Time that the gateway takes to have passed, and no test waited for."""
    seen: "Table[WorkspaceRecord] | None" = None
    """The records as the gateway knows them."""
    keys: "Table[SshKey] | None" = None
    """And the keys."""

    def clock(self) -> datetime:
        """The gateway's."""
        return utc_now() + self.skipped

    async def client(self, user: str | None) -> OpenSsh:
        """An OpenSSH client whose key is this user's; of nobody's with None."""
        client = OpenSsh(self.folder / f"client-{user}", self.settings.listen_port)
        if user is not None:
            await self.register(user, client.key)
        return client

    async def register(self, user: str, key: asyncssh.SSHKey) -> None:
        """Do what the hub does when a user adds a key."""
        fingerprint = key.get_fingerprint()
        line = " ".join(key.export_public_key().decode().split()[:2])
        value = SshKey(user=user, label="laptop", public_key=line, fingerprint=fingerprint, added_at=NOW)
        await self.bus.ssh_keys.put(ssh_key_key(fingerprint), value)
        await until(lambda: self.keys is None or self.keys.value(ssh_key_key(fingerprint)) == value)

    def connect(
        self, login: str, key: asyncssh.SSHKey | None = None, **options: Any
    ) -> AbstractAsyncContextManager[asyncssh.SSHClientConnection]:
        """A client that does as it is told, without any of this machine's settings."""
        values = {"known_hosts": None, "config": None, "agent_path": None, "client_keys": [key] if key else None}
        return asyncssh.connect("127.0.0.1", self.settings.listen_port, username=login, **(values | options))

    async def events(self, kind: EventKind, count: int = 1, *, within: float = 20) -> list[Event]:
        """The first events of a kind, of whatever workspace or none; TimeoutError if there are not as many."""
        found: list[Event] = []
        async with asyncio.timeout(within):
            async with contextlib.aclosing(self.bus.replay("*", since=self.started)) as stream:
                async for event in stream:
                    found += [event] if event.kind is kind else []
                    if len(found) == count:
                        break
        return found

    async def count(self, kind: EventKind) -> int:
        """How many events of a kind have been told."""
        last, found = Event(kind=EventKind.STORE_REBUILT, requester="service:tests"), 0
        await self.bus.emit(last)
        async with asyncio.timeout(20):
            async with contextlib.aclosing(self.bus.replay("*", since=self.started)) as stream:
                async for event in stream:
                    if event.id == last.id:
                        break
                    found += event.kind is kind
        return found

    def directory(self, user: str, server: str = "") -> Path:
        """Where a workspace's programs run."""
        return self.folder / "workspaces" / workspace(user, server).name

    async def put(self, user: str, server: str = "", *, phase: Phase = Phase.READY, **fields: Any) -> None:
        """Do what the worker does: write the record, and let the gateway in if it is ready."""
        value = record(user, server, phase=phase, node=NODE, **fields)
        directory = self.directory(user, server)
        directory.mkdir(parents=True, exist_ok=True)
        self.entries.pop(value.name, None)
        if phase is Phase.READY:
            environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "SHELL": "/bin/sh"}
            self.entries[value.name] = LocalEntry(directory, environment)
        await self.bus.workspaces.put(value.name, value)

    async def put_and_seen(self, user: str, *, phase: Phase, **fields: Any) -> None:
        """The same, and wait until the gateway knows."""
        await self.put(user, phase=phase, **fields)

        def is_seen() -> bool:
            value = self.seen.value(workspace(user).name) if self.seen else None
            return value is not None and value.phase is phase

        await until(is_seen)

    async def resolve(self, query: ResolveTarget) -> Target:
        """Do what the worker does when it is asked."""
        entry = await self.bus.workspaces.get(query.workspace.name)
        is_ready = entry is not None and entry.value.phase is Phase.READY
        return Target(record=entry.value if entry else None, attach=self.attach.address if is_ready else None)

    @asynccontextmanager
    async def gateway(self, **settings: Any) -> AsyncIterator[Runtime]:
        """Run the gateway on the place's port."""
        bus = await WatchedBus.open(bus_settings(self.nats_server, "ssh-gateway"))
        assert isinstance(bus, WatchedBus)
        health = Health()
        health.require("bus", lambda: None if bus.is_connected else "away")
        runtime = Runtime("ssh-gateway", bus, FastAPI(), health, clock=self.clock)
        try:
            async with build(runtime, self.settings.model_copy(update=settings)):
                await until(lambda: not health.problems())
                self.runtime, self.seen = runtime, bus.tables[bus.workspaces.name]
                self.keys = bus.tables[bus.ssh_keys.name]
                yield runtime
        finally:
            await runtime.end()
            await bus.close()


@asynccontextmanager
async def make_place(folder: Path, nats_server: NatsServer, bus: Bus, hub: ScriptedHub) -> AsyncIterator[Place]:
    """A worker that can be entered and a hub that knows nobody yet; no gateway."""
    settings = SshGatewaySettings(
        hub_name="test",
        listen_port=free_port(),
        host_key_file=folder / "gateway" / "host_key",
        client_key_file=folder / "gateway" / "client_key",
        hub_api_url=hub.url,
        hub_api_token=SecretStr(SERVICE_TOKEN),
        hub_timeout=2,
        start_timeout=20,
        reach_timeout=3,
        activity_interval=0.5,
    )
    entries: dict[str, Entry] = {}
    client_key = _make_client_key(settings.client_key_file)
    async with AsyncExitStack() as stack:
        attach = await stack.enter_async_context(
            AttachServer(
                host="127.0.0.1",
                port=0,
                host_key_file=folder / "attach" / "host_key",
                gateway_public_key=client_key,
                enter=entries.get,
            )
        )
        place = Place(folder, nats_server, bus, hub, attach, settings, entries)
        await bus.answer(RESOLVE_TARGET, ResolveTarget, place.resolve)
        lease = WorkerLease(node=NODE, pool="default", backend="process", attach=attach.address, started_at=NOW)
        await bus.workers.put(NODE, lease)
        yield place


def _make_client_key(path: Path) -> str:
    # As the launcher does it: before anything runs.
    path.parent.mkdir(parents=True)
    key = asyncssh.generate_private_key("ssh-ed25519")
    path.touch(mode=0o600)
    path.write_bytes(key.export_private_key())
    return key.export_public_key().decode()


async def read_until(stream: asyncio.StreamReader, text: bytes, *, within: float = 30) -> bytes:
    """What a process says up to and with this text; TimeoutError if it does not come."""
    seen = b""
    async with asyncio.timeout(within):
        while text not in seen:
            piece = await stream.read(4096)
            if not piece:
                raise AssertionError(f"it ended with {seen!r}")
            seen += piece
    return seen


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill a process of the test's and take its last words."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.communicate()
