"""A worker that does what a test tells it: it writes real records over the real bus, and answers for the proxy."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from mlhub_shared.bus import Bus, Delivery, Lease
from mlhub_shared.contracts.commands import Command, DeleteWorkspace, SpawnWorkspace, decode_command
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.queries import DRAIN_NODE, DrainNode
from mlhub_shared.contracts.services import ProxyState, WorkerLease
from mlhub_shared.contracts.subjects import command_durable
from mlhub_shared.contracts.workspace import Endpoint, Phase, Wanted, WorkspaceRecord
from tests.support.ports import free_port

NODE = "node1"

_KINDS = {
    Phase.QUEUED: EventKind.WORKSPACE_QUEUED,
    Phase.PREPARING: EventKind.WORKSPACE_PREPARING,
    Phase.STARTING: EventKind.WORKSPACE_STARTING,
    Phase.READY: EventKind.WORKSPACE_READY,
    Phase.STOPPING: EventKind.WORKSPACE_STOPPING,
    Phase.STOPPED: EventKind.WORKSPACE_STOPPED,
    Phase.FAILED: EventKind.WORKSPACE_FAILED,
}


class ScriptedWorker:
    """Takes commands as a worker does, and takes a spawn as far as `spawn_until` says."""

    def __init__(self, bus: Bus, *, capacity: int | None = None) -> None:
        self.bus = bus
        self.capacity = capacity
        self.spawn_until = Phase.READY
        """Where a spawn stays until the test moves it on."""
        self.commands: list[Command] = []
        """Every command that arrived."""
        self.drains: list[DrainNode] = []
        self.probe_port = free_port()
        self._consumer: asyncio.Task[None] | None = None
        self._leases: list[asyncio.Task[None]] = []
        self._probe: asyncio.Server | None = None

    @property
    def probe_url(self) -> str:
        return f"http://127.0.0.1:{self.probe_port}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ScriptedWorker"]:
        """Work, and have a probe frontend, a worker's and a proxy's lease."""
        await self._open_probe()
        self.resume()
        await self.live()
        await self.bus.answer(DRAIN_NODE, DrainNode, self._drain, node=NODE)
        try:
            yield self
        finally:
            self.pause()
            self.leave()
            self._close_probe()

    @asynccontextmanager
    async def proxy_away(self) -> AsyncIterator[None]:
        """Nobody answers on the probe frontend meanwhile."""
        self._close_probe()
        try:
            yield
        finally:
            await self._open_probe()

    async def _open_probe(self) -> None:
        self._probe = await asyncio.start_server(self._answer_probe, "127.0.0.1", self.probe_port)

    def _close_probe(self) -> None:
        if self._probe is not None:
            self._probe.close()

    def resume(self) -> None:
        """Take commands."""
        if self._consumer is None:
            self._consumer = self.bus.consume(
                stream=self.bus.subjects.commands,
                durable=command_durable("default"),
                filters=[self.bus.subjects.commands_of("default"), self.bus.subjects.commands_of("default", NODE)],
                decode=decode_command,
                handler=self._handle,
            )

    def pause(self) -> None:
        """Leave commands on the bus."""
        if self._consumer is not None:
            self._consumer.cancel()
            self._consumer = None

    async def live(self) -> None:
        """Have leases."""
        self.lease = WorkerLease(
            node=NODE, pool="default", backend="process", capacity=self.capacity, started_at=datetime.now(UTC)
        )
        proxy = ProxyState(replica="proxy1", workspaces_revision=1_000_000)
        self._lease = Lease(self.bus.workers, NODE, lambda: self.lease)
        self._leases = [
            self.bus.run(self._lease.run()),
            self.bus.run(Lease(self.bus.proxies, "proxy1", lambda: proxy).run()),
        ]

    async def _drain(self, query: DrainNode) -> WorkerLease:
        self.drains.append(query)
        self.say(draining=query.draining)
        return self.lease

    def say(self, **fields: Any) -> None:
        """Have the lease tell something else from now on."""
        self.lease = self.lease.model_copy(update=fields)
        self._lease.poke()

    def leave(self) -> None:
        """Give the leases up."""
        for lease in self._leases:
            lease.cancel()

    async def record(self, name: str) -> WorkspaceRecord | None:
        entry = await self.bus.workspaces.get(name)
        return entry.value if entry else None

    async def move(self, name: str, phase: Phase, **fields: Any) -> None:
        """Take a workspace into a phase, and say so."""
        entry = await self.bus.workspaces.get(name)
        assert entry is not None, f"there is no record {name}"
        now = datetime.now(UTC)
        update: dict[str, Any] = {"phase": phase, "phase_since": now} | fields
        if phase is not Phase.QUEUED:
            update.setdefault("node", NODE)
        if phase in {Phase.STARTING, Phase.READY}:
            update.setdefault("endpoint", Endpoint(host="127.0.0.1", port=1))
        record = entry.value.model_copy(update=update)
        await self.bus.workspaces.update(name, record, last=entry.revision)
        await self.tell(record, _KINDS[phase], message=record.message or phase.value.capitalize())

    async def progress(self, name: str, percent: int, message: str) -> None:
        """Say how far a start is, without leaving its phase: by an event alone, as a worker does."""
        entry = await self.bus.workspaces.get(name)
        assert entry is not None, f"there is no record {name}"
        await self.tell(entry.value, EventKind.WORKSPACE_PROGRESSED, message=message, progress=percent)

    async def tell(self, record: WorkspaceRecord, kind: EventKind, **fields: Any) -> None:
        event = Event(
            kind=kind,
            workspace=record.workspace,
            generation=record.generation,
            requester="service:spawner-worker",
            correlation_id=record.correlation_id,
            **fields,
        )
        await self.bus.emit(event)

    def spawns_of(self, name: str) -> list[SpawnWorkspace]:
        """The spawn commands that arrived for a workspace."""
        return [c for c in self.commands if isinstance(c, SpawnWorkspace) and c.workspace.name == name]

    async def _handle(self, command: Command, delivery: Delivery) -> None:
        self.commands.append(command)
        name = command.workspace.name
        entry = await self.bus.workspaces.get(name)
        if entry is not None and entry.value.generation > command.generation:
            return
        if isinstance(command, SpawnWorkspace):
            had_data = entry is not None and entry.value.has_data
            await self._queue(command, delivery.sequence, has_data=had_data or command.spec.is_mount_volume)
            for phase in (Phase.PREPARING, Phase.STARTING, Phase.READY):
                if self.spawn_until is Phase.QUEUED:
                    return
                await self.move(name, phase)
                if phase is self.spawn_until:
                    return
        elif entry is None:
            return
        elif isinstance(command, DeleteWorkspace):
            await self.bus.workspaces.delete(name)
            await self.bus.secrets.delete(name)
            await self.tell(entry.value, EventKind.WORKSPACE_DELETED)
            await self.bus.forget_commands(delivery.subject, up_to=delivery.sequence)
        else:
            update = {"generation": command.generation, "wanted": Wanted.STOPPED, "reason": command.reason}
            await self.move(name, Phase.STOPPED, endpoint=None, **update)

    async def _queue(self, command: SpawnWorkspace, sequence: int, *, has_data: bool) -> None:
        now = datetime.now(UTC)
        record = WorkspaceRecord(
            workspace=command.workspace,
            generation=command.generation,
            wanted=Wanted.RUNNING,
            phase=Phase.QUEUED,
            pool="default",
            base_url=command.base_url,
            spec=command.spec,
            sequence=sequence,
            requester=command.requester,
            correlation_id=command.correlation_id,
            requested_at=command.at,
            phase_since=now,
            has_data=has_data,
        )
        await self.bus.workspaces.put(record.name, record)
        await self.tell(record, EventKind.WORKSPACE_QUEUED, message="Queued")

    async def _answer_probe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
        status = await self._probe_status(request[1].decode())
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async def _probe_status(self, path: str) -> int:
        for key in await self._names():
            record = await self.record(key)
            if record is not None and path == f"{record.base_url}api":
                if record.phase in {Phase.STOPPED, Phase.FAILED, Phase.STOPPING}:
                    return 404
                return 200 if record.phase in {Phase.STARTING, Phase.READY} else 503
        return 503

    async def _names(self) -> list[str]:
        return [command.workspace.name for command in self.commands]
