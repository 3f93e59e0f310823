"""Labels, by which things are found, and annotations, which tell whose they are. Pure."""

import base64
import hashlib
import re
from typing import Any

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_spawner_worker.backends.restoring import (
    BASE_URL,
    GENERATION,
    HOME,
    ORIGIN,
    POOL,
    PORT,
    SERVER,
    SPEC,
    USER,
    number,
    workspace_of,
)

WORKSPACE = "mlhub.workspace"
RECORD = "mlhub.record"
"""The record as it was last remembered."""

_MANAGED = {"app.kubernetes.io/managed-by": "spawner-worker", "app.kubernetes.io/component": "workspace"}

_LONGEST = 63
_HASH_LENGTH = 16
"""Characters of five bits each: too many to find a second name for a label by trying."""

_PLAIN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_LOST = re.compile(r"[^A-Za-z0-9]+")


def label_of(user: str) -> str:
    """A label's value that stands for this user and for no other; a plain name stays as it is."""
    if _PLAIN.fullmatch(user) and len(user) <= _LONGEST and "--" not in user:
        return user
    digest = base64.b32encode(hashlib.sha256(user.encode()).digest()).decode().lower()[:_HASH_LENGTH]
    readable = _LOST.sub("-", user).strip("-")[: _LONGEST - _HASH_LENGTH - 2].rstrip("-")
    return f"{readable or 'user'}--{digest}"


def labels(workspace: WorkspaceId) -> dict[str, str]:
    """On everything of a workspace."""
    return {ORIGIN: workspace.hub, USER: label_of(workspace.user), WORKSPACE: workspace.name, **_MANAGED}


def selector(hub: str) -> str:
    """Finds everything of a hub's workspaces."""
    return f"{ORIGIN}={hub},{WORKSPACE}"


def whose(record: WorkspaceRecord) -> dict[str, str]:
    """Annotations of everything of a workspace: enough to rebuild the record of one that does not run.

    The generation is the one that a thing was made for: a volume goes on to serve newer ones.
    """
    return {
        USER: record.workspace.user,
        SERVER: record.workspace.server,
        GENERATION: str(record.generation),
        BASE_URL: record.base_url,
    }


def of_pod(record: WorkspaceRecord, *, port: int, home: str) -> dict[str, str]:
    """Annotations of a pod: enough to rebuild its record. No secret."""
    return whose(record) | {
        SPEC: record.spec.model_dump_json(exclude_defaults=True),
        POOL: record.pool,
        PORT: str(port),
        HOME: home,
    }


def generation_of(thing: dict[str, Any]) -> int:
    """The one that it was made for; 0 where it does not say."""
    return number((thing.get("metadata") or {}).get("annotations") or {}, GENERATION)


def carried(thing: dict[str, Any]) -> dict[str, str]:
    """What a thing tells of its workspace, as `restoring` reads it; empty if it is nobody's."""
    metadata = thing.get("metadata") or {}
    found = metadata.get("labels") or {}
    told = {**(metadata.get("annotations") or {}), ORIGIN: found.get(ORIGIN, "")}
    workspace = workspace_of(told, told[ORIGIN])
    is_named_after_it = workspace is not None and workspace.name == metadata.get("name") == found.get(WORKSPACE)
    return told if is_named_after_it else {}
