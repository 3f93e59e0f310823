"""What one user's workspaces have together."""

from mlhub_hub.context import HubContext
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import WorkspaceSpec


def others_up(context: HubContext, workspace: WorkspaceId) -> list[WorkspaceSpec]:
    """The same user's other workspaces that are up, or asked for: what counts beside this one."""
    up = {
        record.name: record.spec
        for record in context.workspaces.values()
        if record.workspace.user == workspace.user and record.phase.is_active
    }
    for name, spawner in context.spawners.items():
        # A start has no record before a worker has seen its command, and two workers may see two at once.
        if spawner.user.name == workspace.user and spawner.pending == "spawn" and spawner.starting is not None:
            up[name] = spawner.starting
    up.pop(workspace.name, None)
    return list(up.values())
