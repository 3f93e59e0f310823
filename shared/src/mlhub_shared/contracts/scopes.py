"""What the scopes of a token or a share say about entering a workspace."""

from collections.abc import Iterable

from mlhub_shared.contracts.identity import WorkspaceId


def may_access(scopes: Iterable[str], workspace: WorkspaceId) -> bool:
    """Whether expanded scopes let their holder into this workspace.

    The hub has resolved `!user` to its owner before it hands scopes out. A filter by group is not followed: who needs
    it shares the server with the group.
    """
    enough = {"access:servers"}
    if (scope := scope_of(workspace)) is not None:
        enough |= {scope, f"access:servers!user={workspace.user}"}
    return not enough.isdisjoint(scopes)


def scope_of(workspace: WorkspaceId) -> str | None:
    """The scope that opens this workspace and no other one; None if no scope can say which one is meant.

    `a/b` + `c` and `a` + `b/c` would be one name; nobody is let in on the strength of the other.
    """
    if "/" in workspace.user or "/" in workspace.server:
        return None
    return f"access:servers!server={workspace.user}/{workspace.server}"
