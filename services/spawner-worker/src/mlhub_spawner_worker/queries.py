"""What others ask a worker."""

from collections.abc import Callable

from mlhub_shared.bus import Table
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.queries import (
    AttachAddress,
    DescribeWorkspace,
    DrainNode,
    ExtendWorkspace,
    ListPorts,
    ListResources,
    OpenPort,
    Ports,
    ResolveTarget,
    Resources,
    Target,
    WorkspaceDescription,
)
from mlhub_shared.contracts.services import WorkerLease
from mlhub_shared.contracts.workspace import Endpoint, Phase, WorkspaceRecord
from mlhub_shared.errors import NotFound, Permanent
from mlhub_spawner_worker import lifecycle
from mlhub_spawner_worker.drain import Drain
from mlhub_spawner_worker.driver import Tools
from mlhub_spawner_worker.ports import WorkspacePorts


class Queries:
    """Answers from the records and from what the backend sees."""

    def __init__(
        self,
        tools: Tools,
        workers: Table[WorkerLease],
        drain: Drain,
        ports: WorkspacePorts,
        lease: Callable[[], WorkerLease],
        *,
        key: str,
    ) -> None:
        """`lease` tells at once what has become of this worker's, whose entry has that `key`."""
        self._tools, self._workers, self._drain, self._ports, self._lease = tools, workers, drain, ports, lease
        self._key = key

    async def resolve(self, query: ResolveTarget) -> Target:
        """Where SSH into a workspace goes; any worker knows."""
        record = self._tools.store.known(query.workspace.name)
        is_open = record is not None and record.phase is Phase.READY
        return Target(record=record, attach=self._attach(record.node) if is_open and record else None)

    async def describe(self, query: DescribeWorkspace) -> WorkspaceDescription:
        """What the backend sees of a workspace of this node."""
        sight = await self._tools.backend.describe(query.workspace.name)
        return WorkspaceDescription(
            record=self._tools.store.known(query.workspace.name),
            running=sight.running,
            cpu_seconds=sight.cpu_seconds,
            memory_bytes=sight.memory_bytes,
            log_tail=sight.log_tail,
        )

    async def list(self, _: ListResources) -> Resources:
        """Everything of this deployment on this node."""
        return Resources(node=self._tools.node, resources=await self._tools.backend.resources())

    async def ports(self, query: ListPorts) -> Ports:
        """On which ports programs of a workspace of this node listen."""
        return Ports(ports=await self._ports.listed(query.workspace.name))

    async def open_port(self, query: OpenPort) -> Endpoint:
        """Where the proxy reaches one of them."""
        return await self._ports.open(query.workspace.name, query.port)

    async def drain(self, query: DrainNode) -> WorkerLease:
        """Take no more workspaces on this node, or take them again."""
        if await self._drain.set(is_on=query.draining):
            node = self._tools.node
            event = Event(
                kind=EventKind.NODE_DRAINING if query.draining else EventKind.NODE_RESUMED,
                message=f"Node {node} takes no more workspaces" if query.draining else f"Node {node} takes workspaces",
                requester=query.requester,
                correlation_id=query.correlation_id,
                detail={"node": node},
            )
            await self._tools.teller.tell(node, event)
        return self._lease()

    async def extend(self, query: ExtendWorkspace) -> WorkspaceRecord:
        """Put off the expiry of a running workspace."""
        self._check(query)
        is_new = False

        def decide(record: WorkspaceRecord | None) -> WorkspaceRecord:
            nonlocal is_new
            if record is None:
                raise NotFound("there is no such workspace")
            if record.generation != query.generation:
                raise Permanent("the workspace has been started or stopped meanwhile: look again")
            if record.phase is not Phase.READY:
                raise Permanent("only a running workspace can be extended")
            new = lifecycle.extended(record, query.expires_at)
            is_new = new != record
            return new

        record = await self._tools.store.change(query.workspace.name, decide)
        if record is None:
            raise NotFound("there is no such workspace")
        if is_new:
            until = query.expires_at.isoformat() if query.expires_at else None
            message = f"Extended until {until}" if until else "Extended for good"
            event = Event(
                kind=EventKind.WORKSPACE_EXTENDED,
                workspace=record.workspace,
                generation=record.generation,
                message=message,
                requester=query.requester,
                correlation_id=query.correlation_id,
                detail={"expires_at": until},
            )
            await self._tools.teller.tell(record.name, event)
        return record

    def _attach(self, node: str | None) -> AttachAddress | None:
        """Of a worker that lives there; of several, this one knows best that it does."""
        live = [lease for lease in self._workers.values() if lease.node == node]
        leases = [lease for lease in live if not lease.trouble] or live
        own = next((lease for lease in leases if lease.key == self._key), None)
        lease = own or next(iter(leases), None)
        return lease.attach if lease else None

    def _check(self, query: ExtendWorkspace) -> None:
        now, most = self._tools.clock(), self._tools.policy.max_days_to_live
        if query.expires_at is not None and query.expires_at <= now:
            raise Permanent("that time has passed")
        if most is None:
            return
        if query.expires_at is None or (query.expires_at - now).total_seconds() > most * 86400:
            raise Permanent(f"a workspace may live for at most {most:g} days from now")
