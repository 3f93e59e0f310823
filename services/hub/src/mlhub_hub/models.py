"""What the REST API says of a workspace beyond what JupyterHub knows of its server."""

from typing import Any

from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.apihandlers.users import SelfAPIHandler, SpawnProgressAPIHandler, UserListAPIHandler

from mlhub_hub.context import SETTINGS_KEY, HubContext
from mlhub_hub.nodes import unreachable
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord

Model = dict[str, Any]


class WorkspaceModels(APIHandler):
    """Mixed into every handler that answers with servers: each has its `workspace`."""

    @property
    def mlhub(self) -> HubContext:
        """The hub's context."""
        context: HubContext = self.settings[SETTINGS_KEY]
        return context

    def server_model(self, spawner: Any, *, user: Any = None) -> Model:
        """JupyterHub's model; one whose node is away is neither ready nor stopped."""
        model: Model = super().server_model(spawner, user=user)
        owner = (user or spawner.user).name
        record = self.mlhub.workspaces.value(self.mlhub.workspace(owner, model["name"]).name)
        is_unreachable = self.mlhub.nodes.is_unreachable(record)
        model["workspace"] = workspace_model(record, is_unreachable=is_unreachable) if record else None
        if is_unreachable:
            model |= {"ready": False, "stopped": False}
        return model


class SelfHandler(WorkspaceModels, SelfAPIHandler):
    """Who asks, with his servers."""


class UserListHandler(WorkspaceModels, UserListAPIHandler):
    """All users, with their servers."""


class ProgressHandler(WorkspaceModels, SpawnProgressAPIHandler):
    """The progress of a start; its end says why, where it failed."""

    async def send_event(self, event: Model) -> None:
        """Send one message, with what the worker says of a failure."""
        record = self._record()
        if record is not None and event.get("failed") and self._is_of_last_start(record):
            event = event | {"reason": record.reason, "log_tail": record.log_tail}
        if record is not None and event.get("ready") and self.mlhub.nodes.is_unreachable(record):
            event = {"progress": record.progress, "message": unreachable(record), "unreachable": True}
        await super().send_event(event)

    def _is_of_last_start(self, record: WorkspaceRecord) -> bool:
        spawner = self.mlhub.spawners.get(record.name)
        return record.phase is Phase.FAILED and (spawner is None or record.generation >= spawner.generation)

    def _record(self) -> WorkspaceRecord | None:
        user, server, *_ = [*self.path_args, ""]
        return self.mlhub.workspaces.value(self.mlhub.workspace(user, server or "").name)


def workspace_model(record: WorkspaceRecord, *, is_unreachable: bool) -> Model:
    """What its worker last said of it, and what it has."""
    spec = record.spec
    return {
        "status": "unreachable" if is_unreachable else record.phase,
        "message": unreachable(record) if is_unreachable else record.message,
        "reason": record.reason,
        "progress": record.progress,
        "log_tail": record.log_tail,
        "node": record.node,
        "expires_at": record.expires_at.isoformat() if record.expires_at else None,
        "profile": spec.profile,
        "image": spec.image,
        "cpu_limit": spec.cpu_limit,
        "mem_limit": spec.mem_limit,
        "gpus": list(record.gpu_ids),
    }
