"""Messages and records with all that a test does not care about filled in."""

from datetime import UTC, datetime
from typing import Any

from mlhub_shared.contracts.commands import DeleteWorkspace, SpawnWorkspace, StopWorkspace
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import Phase, Wanted, WorkspaceRecord, WorkspaceSpec

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

NEWEST = 2**62
"""No generation is newer: for who means whatever there is."""


def workspace(user: str = "alice", server: str = "") -> WorkspaceId:
    return WorkspaceId(hub="test", user=user, server=server)


def base_url(workspace_id: WorkspaceId) -> str:
    return "/".join(["", "user", workspace_id.user, *([workspace_id.server] if workspace_id.server else []), ""])


def spawn(user: str = "alice", server: str = "", *, generation: int = 1, **fields: Any) -> SpawnWorkspace:
    target = workspace(user, server)
    fields.setdefault("spec", WorkspaceSpec())
    return SpawnWorkspace(
        workspace=target, generation=generation, base_url=base_url(target), requester=f"user:{user}", **fields
    )


def stop(user: str = "alice", server: str = "", *, generation: int = 2, **fields: Any) -> StopWorkspace:
    return StopWorkspace(workspace=workspace(user, server), generation=generation, requester=f"user:{user}", **fields)


def delete(user: str = "alice", server: str = "", *, generation: int = 3) -> DeleteWorkspace:
    return DeleteWorkspace(workspace=workspace(user, server), generation=generation, requester=f"user:{user}")


def record(user: str = "alice", server: str = "", *, phase: Phase = Phase.READY, **fields: Any) -> WorkspaceRecord:
    target = workspace(user, server)
    values: dict[str, Any] = {
        "generation": 1,
        "wanted": Wanted.RUNNING if phase.is_active else Wanted.STOPPED,
        "pool": "default",
        "base_url": base_url(target),
        "spec": WorkspaceSpec(),
        "requested_at": NOW,
        "phase_since": NOW,
    }
    return WorkspaceRecord(workspace=target, phase=phase, **(values | fields))
