"""What a workspace's things carry, and how a record is rebuilt from that when nothing else is left. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

from pydantic import ValidationError

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import Phase, Wanted, WorkspaceRecord, WorkspaceSpec

ORIGIN = "mlhub.origin"
"""The hub's name."""
USER = "mlhub.user"
SERVER = "mlhub.server_name"
GENERATION = "mlhub.generation"
BASE_URL = "mlhub.base_url"
SPEC = "mlhub.spec"
POOL = "mlhub.pool"
PORT = "mlhub.port"
HOME = "mlhub.home"
GPUS = "mlhub.gpus"

Labels = Mapping[str, str]


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


def moment(text: str) -> datetime:
    """A time as the engine writes it, of any precision."""
    whole, _, rest = text.rstrip("Z").partition(".")
    try:
        return datetime.fromisoformat(f"{whole}.{rest[:6]:0<6}").replace(tzinfo=UTC)
    except ValueError:
        return datetime.now(UTC)


def _base_url(workspace: WorkspaceId) -> str:
    parts = [workspace.user, *([workspace.server] if workspace.server else [])]
    return "/".join(["", "user", *(quote(part, safe="@~") for part in parts), ""])


def _spec(text: str) -> WorkspaceSpec:
    try:
        return WorkspaceSpec.model_validate_json(text)
    except ValidationError:
        return WorkspaceSpec()
