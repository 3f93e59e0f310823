"""Labels: what everything of a user carries in the engine."""

import json
from datetime import UTC, datetime

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_spawner_worker.backends.restoring import (
    BASE_URL,
    GENERATION,
    GPUS,
    HOME,
    ORIGIN,
    POOL,
    PORT,
    SERVER,
    SPEC,
    USER,
    Labels,
    moment,
    number,
    record_of,
    workspace_of,
)

__all__ = [
    "BASE_URL",
    "GENERATION",
    "GPUS",
    "HOME",
    "ORIGIN",
    "POOL",
    "PORT",
    "SERVER",
    "SPEC",
    "USER",
    "Labels",
    "moment",
    "number",
    "record_of",
    "workspace_of",
]

KEPT = "mlhub.kept"
"""On a marker: the name of a volume that outlives its workspace."""
KEPT_UNTIL = "mlhub.kept_until"
BOOT = "mlhub.boot"
"""Of the engine when the container was started; see `Engine.boot`."""

SERVICE = "mlhub.service"
DEPLOYMENT = "mlhub.deployment"
"""These two are on the deployment's own containers, which are nobody's workspace."""


def of_user(hub: str, user: str) -> dict[str, str]:
    """What a user's network carries."""
    return {ORIGIN: hub, USER: user}


def of_workspace(workspace: WorkspaceId) -> dict[str, str]:
    """What everything of one workspace carries."""
    return of_user(workspace.hub, workspace.user) | {SERVER: workspace.server}


def of_volume(workspace: WorkspaceId, *, base_url: str) -> dict[str, str]:
    """What a workspace's volume carries: enough to rebuild the record of one that does not run."""
    return of_workspace(workspace) | {BASE_URL: base_url}


def of_container(record: WorkspaceRecord, *, port: int, home: str, boot: str) -> dict[str, str]:
    """What a container carries: enough to rebuild its record. No secret."""
    return of_workspace(record.workspace) | {
        GENERATION: str(record.generation),
        BASE_URL: record.base_url,
        SPEC: record.spec.model_dump_json(exclude_defaults=True),
        POOL: record.pool,
        PORT: str(port),
        HOME: home,
        GPUS: ",".join(record.gpu_ids),
        BOOT: boot,
    }


def filters(**wanted: str) -> str:
    """The filter of an engine's list: everything that carries all of these labels."""
    return json.dumps({"label": [f"{name}={value}" for name, value in wanted.items()]})


def instant(seconds: float | None) -> datetime:
    """A time as the engine's lists have it."""
    return datetime.fromtimestamp(seconds or 0, UTC)
