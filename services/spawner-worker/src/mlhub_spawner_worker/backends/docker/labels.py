"""Labels: what everything of a user carries, and how a record is rebuilt from them when nothing else is left."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

from pydantic import ValidationError

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import Phase, Wanted, WorkspaceRecord, WorkspaceSpec

ORIGIN = "mlhub.origin"
USER = "mlhub.user"
SERVER = "mlhub.server_name"
GENERATION = "mlhub.generation"
BASE_URL = "mlhub.base_url"
SPEC = "mlhub.spec"
POOL = "mlhub.pool"
PORT = "mlhub.port"
HOME = "mlhub.home"
GPUS = "mlhub.gpus"
KEPT = "mlhub.kept"
"""On a marker: the name of a volume that outlives its workspace."""
KEPT_UNTIL = "mlhub.kept_until"
BOOT = "mlhub.boot"
"""Of the engine when the container was started; see `Engine.boot`."""

SERVICE = "mlhub.service"
DEPLOYMENT = "mlhub.deployment"
"""These two are on the deployment's own containers, which are nobody's workspace."""

Labels = Mapping[str, str]


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


def workspace_of(labels: Labels, hub: str) -> WorkspaceId | None:
    """Whose it is; None if it is not a workspace's of this hub."""
    if labels.get(ORIGIN) != hub or USER not in labels:
        return None
    try:
        return WorkspaceId(hub=hub, user=labels[USER], server=labels.get(SERVER, ""))
    except ValidationError:
        return None


def number(labels: Labels, name: str) -> int:
    """The number of a label; 0 if it carries none."""
    text = labels.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def record_of(labels: Labels, hub: str, *, made: datetime, runs: bool) -> WorkspaceRecord | None:
    """The record that the labels of a container or a volume tell of; None if they tell of none."""
    workspace = workspace_of(labels, hub)
    if workspace is None:
        return None
    return WorkspaceRecord(
        workspace=workspace,
        generation=number(labels, GENERATION) or 1,
        wanted=Wanted.RUNNING if runs else Wanted.STOPPED,
        phase=Phase.STARTING if runs else Phase.STOPPED,
        pool=labels.get(POOL) or "default",
        base_url=labels.get(BASE_URL) or _base_url(workspace),
        spec=_spec(labels.get(SPEC, "{}")),
        gpu_ids=tuple(filter(None, labels.get(GPUS, "").split(","))) if runs else (),
        requested_at=made,
        phase_since=made,
        started_at=made if runs else None,
    )


def filters(**wanted: str) -> str:
    """The filter of an engine's list: everything that carries all of these labels."""
    return json.dumps({"label": [f"{name}={value}" for name, value in wanted.items()]})


def moment(text: str) -> datetime:
    """A time as the engine writes it, of any precision."""
    whole, _, rest = text.rstrip("Z").partition(".")
    try:
        return datetime.fromisoformat(f"{whole}.{rest[:6]:0<6}").replace(tzinfo=UTC)
    except ValueError:
        return datetime.now(UTC)


def instant(seconds: float | None) -> datetime:
    """A time as the engine's lists have it."""
    return datetime.fromtimestamp(seconds or 0, UTC)


def _base_url(workspace: WorkspaceId) -> str:
    parts = [workspace.user, *([workspace.server] if workspace.server else [])]
    return "/".join(["", "user", *(quote(part, safe="@~") for part in parts), ""])


def _spec(text: str) -> WorkspaceSpec:
    try:
        return WorkspaceSpec.model_validate_json(text)
    except ValidationError:
        return WorkspaceSpec()
