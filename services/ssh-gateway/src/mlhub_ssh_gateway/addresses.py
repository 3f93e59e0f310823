"""Which workspace a login name means: `user` or `user--server`, where either may contain dashes of its own."""

from collections.abc import Callable

from pydantic import ValidationError

from mlhub_shared.contracts.identity import WorkspaceId

SEPARATOR = "--"

_NO_NAMES = frozenset({".", ".."})
"""They would walk up the paths of the hub's API."""


def readings(hub: str, login_name: str) -> list[WorkspaceId]:
    """Every workspace a login name can mean: first the user of that whole name, then split from the last `--` on."""
    pairs = [(login_name, "")]
    at = login_name.rfind(SEPARATOR)
    while at > 0:
        if server := login_name[at + len(SEPARATOR) :]:
            pairs.append((login_name[:at], server))
        at = login_name.rfind(SEPARATOR, 0, at + 1)
    return [found for user, server in pairs if (found := _workspace(hub, user, server)) is not None]


def own(found: list[WorkspaceId], user: str) -> WorkspaceId | None:
    """The reading that is this user's; there can only be one."""
    return next((workspace for workspace in found if workspace.user == user), None)


def existing(found: list[WorkspaceId], exists: Callable[[WorkspaceId], bool]) -> WorkspaceId | None:
    """The first reading that exists."""
    return next((workspace for workspace in found if exists(workspace)), None)


def _workspace(hub: str, user: str, server: str) -> WorkspaceId | None:
    if not _NO_NAMES.isdisjoint((user, server)):
        return None
    try:
        return WorkspaceId(hub=hub, user=user, server=server)
    except ValidationError:
        return None
