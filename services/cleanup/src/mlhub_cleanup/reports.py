"""What the clean-up found and did: the answers of its API."""

from datetime import datetime
from enum import StrEnum
from typing import Self

from pydantic import AwareDatetime, BaseModel, Field

from mlhub_shared.contracts.queries import Resource
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord


class Outcome(StrEnum):
    """What became of a workspace in a report."""

    FOUND = "found"
    """Only looked at: a dry run."""
    HELD = "held"
    """The hub does not know its user, but nobody has said that he was deleted; an administrator has to say so."""
    ASKED = "asked"
    """Its worker is asked to stop or to delete it."""
    KEPT = "kept"
    """Its user is there after all, or something newer has been asked for."""
    FAILED = "failed"
    """Could not be checked or asked for now."""


class Item(BaseModel):
    """One workspace of a report."""

    workspace: str
    user: str
    server: str
    phase: Phase
    node: str | None
    expires_at: AwareDatetime | None
    outcome: Outcome
    user_deleted_at: AwareDatetime | None = None
    """When its user was deleted. None: not as far as anybody has said."""

    @classmethod
    def of(cls, record: WorkspaceRecord, outcome: Outcome, *, user_deleted_at: datetime | None = None) -> Self:
        """What is known of a workspace, and what became of it."""
        return cls(
            workspace=record.name,
            user=record.workspace.user,
            server=record.workspace.server,
            phase=record.phase,
            node=record.node,
            expires_at=record.expires_at,
            outcome=outcome,
            user_deleted_at=user_deleted_at,
        )


class Report(BaseModel):
    """What a look at all workspaces found."""

    dry_run: bool
    at: AwareDatetime
    problem: str | None = None
    """Why it is not complete; nothing was deleted then."""
    workspaces: list[Item] = Field(default_factory=list)


class ExpiredReport(Report):
    """Workspaces that are up although their time is over."""


class UsersReport(Report):
    """Workspaces whose user does not exist any more."""

    users: int | None = None
    """How many users the hub has. None: it did not say."""
    unclaimed: list[Resource] = Field(default_factory=list)
    """What workers hold for workspaces that have no record; never deleted from here."""
    silent_nodes: list[str] = Field(default_factory=list)
    """Nodes whose worker did not tell what it holds."""


class Extension(BaseModel):
    """A workspace's new end."""

    workspace: str
    user: str
    server: str
    expires_at: AwareDatetime | None
    """None: it never expires."""
