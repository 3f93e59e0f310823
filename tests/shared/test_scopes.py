"""What scopes say about a workspace, all of them."""

import pytest

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.scopes import may_access

DEFAULT = WorkspaceId(hub="test", user="alice")
NAMED = WorkspaceId(hub="test", user="alice", server="gpu1")


@pytest.mark.parametrize(
    ("scope", "default", "named"),
    [
        ("access:servers", True, True),
        ("access:servers!user=alice", True, True),
        ("access:servers!server=alice/", True, False),
        ("access:servers!server=alice/gpu1", False, True),
        ("access:servers!user=bob", False, False),
        ("access:servers!user=alic", False, False),
        ("access:servers!user=alice2", False, False),
        ("access:servers!user=", False, False),
        ("access:servers!user", False, False),
        ("access:servers!server=bob/gpu1", False, False),
        ("access:servers!server=alice/gpu", False, False),
        ("access:servers!server=alice/gpu12", False, False),
        ("access:servers!server=alice", False, False),
        ("access:servers!server", False, False),
        ("access:servers!group=everybody", False, False),
        ("access:services", False, False),
        ("access:server", False, False),
        ("read:servers!user=alice", False, False),
        ("servers", False, False),
        ("admin:servers", False, False),
        ("self", False, False),
        ("", False, False),
    ],
)
def test_one_scope(scope: str, default: bool, named: bool) -> None:
    assert (may_access([scope], DEFAULT), may_access([scope], NAMED)) == (default, named)


def test_any_of_them_is_enough_and_none_is_not() -> None:
    assert may_access(["read:users", "access:servers!user=alice"], NAMED)
    assert not may_access([], NAMED)


@pytest.mark.parametrize(("user", "server"), [("alice", "b/c"), ("alice/b", "c")])
def test_a_name_that_can_be_read_twice_is_not_let_in_by_name(user: str, server: str) -> None:
    workspace = WorkspaceId(hub="test", user=user, server=server)
    assert not may_access(["access:servers!server=alice/b/c"], workspace)
    assert may_access(["access:servers"], workspace)
