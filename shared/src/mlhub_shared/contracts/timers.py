"""What the clean-up's timers carry, and when they are due."""

from datetime import timedelta
from enum import StrEnum

from pydantic import AwareDatetime, PositiveInt

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.message import Message

WARN_BEFORE = timedelta(minutes=15)
"""How long before its end a workspace's user is warned, unless a deployment sets another time."""

_SHARE = 4
"""A short life is warned about in its last quarter, not the moment it begins."""


class Purpose(StrEnum):
    """What a timer is for; a token of its subject."""

    WARN = "warn"
    EXPIRE = "expire"


class Timer(Message):
    """What a fired timer was armed for: one that does not match the record any more is stale."""

    workspace: WorkspaceId
    generation: PositiveInt
    purpose: Purpose
    expires_at: AwareDatetime


def warns_at(
    ready_at: AwareDatetime | None, expires_at: AwareDatetime, *, warn_before: timedelta = WARN_BEFORE
) -> AwareDatetime:
    """When the end of a workspace that is ready since then is to be announced."""
    if ready_at is None:
        return expires_at - warn_before
    return expires_at - min(warn_before, (expires_at - ready_at) / _SHARE)
