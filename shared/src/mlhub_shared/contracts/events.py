"""What happened, in the past tense; kept in the audit stream."""

from enum import StrEnum

from pydantic import Field, PositiveInt

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.message import Message

Detail = str | int | float | bool | None


class EventKind(StrEnum):
    """Last token of an event's subject."""

    WORKSPACE_REQUESTED = "workspace-requested"
    WORKSPACE_QUEUED = "workspace-queued"
    WORKSPACE_PREPARING = "workspace-preparing"
    WORKSPACE_PROGRESSED = "workspace-progressed"
    WORKSPACE_STARTING = "workspace-starting"
    WORKSPACE_READY = "workspace-ready"
    WORKSPACE_STOPPING = "workspace-stopping"
    WORKSPACE_STOPPED = "workspace-stopped"
    WORKSPACE_FAILED = "workspace-failed"
    WORKSPACE_DELETED = "workspace-deleted"
    WORKSPACE_ADOPTED = "workspace-adopted"
    WORKSPACE_EXPIRING = "workspace-expiring"
    WORKSPACE_EXPIRED = "workspace-expired"
    WORKSPACE_EXTENDED = "workspace-extended"
    LOGIN_REFUSED = "login-refused"
    """Nobody proved to be who he said: a wrong password, key or token."""
    ACCESS_DENIED = "access-denied"
    """Somebody who proved who he is may not enter there."""
    SESSION_OPENED = "session-opened"
    SESSION_CLOSED = "session-closed"
    USER_SIGNED_UP = "user-signed-up"
    USER_APPROVED = "user-approved"
    USER_REJECTED = "user-rejected"
    USER_LOGGED_IN = "user-logged-in"
    USER_LOCKED_OUT = "user-locked-out"
    USER_DELETED = "user-deleted"
    PASSWORD_CHANGED = "password-changed"  # noqa: S105  (the name of an event, not a password)
    SSH_KEY_ADDED = "ssh-key-added"
    SSH_KEY_REMOVED = "ssh-key-removed"
    WORKER_LOST = "worker-lost"
    NODE_DRAINING = "node-draining"
    NODE_RESUMED = "node-resumed"
    STORE_REBUILT = "store-rebuilt"
    MESSAGE_DEAD = "message-dead"


class Event(Message):
    """One thing that happened. Carries no secret."""

    kind: EventKind
    workspace: WorkspaceId | None = None
    user: str | None = None
    """Whom it concerns where it is not a workspace."""
    generation: PositiveInt | None = None
    message: str = ""
    """A sentence for people."""
    progress: int | None = None
    """0 to 100 on the way to ready; None where it says nothing about that."""
    detail: dict[str, Detail] = Field(default_factory=dict)
