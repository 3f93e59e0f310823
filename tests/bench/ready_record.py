"""Records of workspaces that run nowhere."""

from datetime import UTC, datetime

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import Endpoint, Phase, Wanted, WorkspaceRecord, WorkspaceSpec


def ready_record(
    hub: str, user: str, *, node: str, port: int, generation: int = 1, expires_at: datetime | None = None
) -> WorkspaceRecord:
    """A workspace that is ready since now, at a port of this machine."""
    now = datetime.now(UTC)
    return WorkspaceRecord(
        workspace=WorkspaceId(hub=hub, user=user),
        generation=generation,
        wanted=Wanted.RUNNING,
        phase=Phase.READY,
        pool="default",
        node=node,
        base_url=f"/user/{user}/",
        spec=WorkspaceSpec(),
        endpoint=Endpoint(host="127.0.0.1", port=port),
        progress=100,
        message="Ready",
        requester=f"user:{user}",
        correlation_id="0" * 32,
        requested_at=now,
        phase_since=now,
        started_at=now,
        ready_at=now,
        expires_at=expires_at,
    )
