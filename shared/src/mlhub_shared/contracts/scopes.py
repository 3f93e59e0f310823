"""What the scopes of a token or a share say about entering a workspace."""

from collections.abc import Iterable

from mlhub_shared.contracts.identity import WorkspaceId


def may_access(scopes: Iterable[str], workspace: WorkspaceId) -> bool:
    """Whether expanded scopes let their holder into this workspace.

    The hub has resolved `!user` to its owner before it hands scopes out. A filter by group is not followed: who needs
    it shares the server with the group.
    """
    enough = {
        "access:servers",
        f"access:servers!user={workspace.user}",
        f"access:servers!server={workspace.user}/{workspace.server}",
    }
    # `a/b` + `c` and `a` + `b/c` would be one name; nobody is let in on the strength of the other.
    if "/" in workspace.user or "/" in workspace.server:
        enough = {"access:servers"}
    return not enough.isdisjoint(scopes)
