"""Login names and the workspaces they can mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_ssh_gateway.addresses import own, readings

NAMES = st.text(st.sampled_from("ab-.@é"), min_size=1, max_size=12).filter(lambda name: name not in {".", ".."})


def pairs(login_name: str) -> list[tuple[str, str]]:
    return [(found.user, found.server) for found in readings("test", login_name)]


@pytest.mark.parametrize(
    ("login_name", "expected"),
    [
        ("alice", [("alice", "")]),
        ("alice--gpu1", [("alice--gpu1", ""), ("alice", "gpu1")]),
        ("a--b--c", [("a--b--c", ""), ("a--b", "c"), ("a", "b--c")]),
        ("a---b", [("a---b", ""), ("a-", "b"), ("a", "-b")]),
        ("--b", [("--b", "")]),
        ("a--", [("a--", "")]),
        ("", []),
        ("..", []),
        ("..--x", [("..--x", "")]),
        ("x--..", [("x--..", "")]),
        ("a" * 300, []),
    ],
)
def test_every_reading_is_found_in_its_order(login_name: str, expected: list[tuple[str, str]]) -> None:
    assert pairs(login_name) == expected


@given(user=NAMES, server=st.one_of(st.just(""), NAMES))
def test_an_owner_always_gets_the_workspace_whose_address_it_is(user: str, server: str) -> None:
    workspace = WorkspaceId(hub="test", user=user, server=server)
    assert own(readings("test", workspace.address), user) == workspace
