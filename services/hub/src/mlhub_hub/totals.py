"""What one user's workspaces have together."""

from mlhub_hub.context import HubContext
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import WorkspaceSpec


def others_up(context: HubContext, workspace: WorkspaceId) -> list[WorkspaceSpec]:
    """The same user's other workspaces that are wanted up: what counts beside this one."""
    return [
        record.spec
        for record in context.workspaces.values()
        if record.workspace.user == workspace.user and record.name != workspace.name and record.phase.is_active
    ]
