"""Where the attach endpoint of a ready workspace is."""

from datetime import timedelta

import structlog

from mlhub_shared.bus import Bus, Table
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.queries import RESOLVE_TARGET, AttachAddress, ResolveTarget, Target
from mlhub_shared.contracts.services import WorkerLease, by_node
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord
from mlhub_shared.errors import Temporary

log = structlog.get_logger(__name__)

_ANSWER = timedelta(seconds=3)


class Resolver:
    """Asks the workers; with the bus away, goes by what it last heard of them."""

    def __init__(self, bus: Bus, records: Table[WorkspaceRecord], leases: Table[WorkerLease]) -> None:
        self._bus, self._records, self._leases = bus, records, leases

    async def locate(self, workspace: WorkspaceId) -> AttachAddress:
        """The endpoint of a workspace; Temporary if it can't be entered now, Permanent if the workers say no."""
        try:
            attach = await self._ask(workspace)
        except Temporary as error:
            log.info("resolve.unanswered", workspace=workspace.name, error=str(error))
            attach = self._last_known(workspace)
        if attach is None:
            raise Temporary(f"workspace {workspace.address} can't be entered now")
        return attach

    async def _ask(self, workspace: WorkspaceId) -> AttachAddress | None:
        if not self._bus.is_connected:
            return self._last_known(workspace)
        target = await self._bus.ask(RESOLVE_TARGET, ResolveTarget(workspace=workspace), Target, timeout=_ANSWER)
        return target.attach

    def _last_known(self, workspace: WorkspaceId) -> AttachAddress | None:
        record = self._records.value(workspace.name)
        if record is None or record.node is None or record.phase is not Phase.READY:
            return None
        lease = by_node(self._leases.values()).get(record.node)
        return lease.attach if lease else None
