"""Names of workspaces: one for each identity, and a DNS label."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.services import route_key, ssh_key_key

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

HUBS = st.sampled_from(["a", "b", "ab", "mlhub", "x0"])
# Few and nasty characters, so that names come close to each other.
NASTY = st.text(alphabet="ab-_.@A0 \u00fc/%", max_size=8)
USERS = st.one_of(NASTY, st.sampled_from(["mlhub", "a-mlhub", "a-mlhub-b", "ws-a"]), st.text(max_size=255)).filter(bool)
SERVERS = st.one_of(NASTY, st.sampled_from(["", "mlhub", "b-mlhub"]), st.text(max_size=255))
IDENTITIES = st.builds(WorkspaceId, hub=HUBS, user=USERS, server=SERVERS)


@settings(max_examples=300, deadline=None)
@given(st.lists(IDENTITIES, min_size=2, max_size=40, unique_by=lambda one: (one.hub, one.user, one.server)))
def test_no_two_identities_share_a_name(identities: list[WorkspaceId]) -> None:
    assert len({one.name for one in identities}) == len(identities)


@settings(max_examples=500, deadline=None)
@given(IDENTITIES)
def test_a_name_is_a_dns_label_and_always_the_same(one: WorkspaceId) -> None:
    assert LABEL.fullmatch(one.name)
    assert WorkspaceId.model_validate_json(one.model_dump_json()).name == one.name


def test_no_two_short_identities_share_a_name() -> None:
    texts = ["".join(letters) for length in range(4) for letters in itertools.product("a-b", repeat=length)]
    identities = [
        WorkspaceId(hub=hub, user=user, server=server)
        for hub, user, server in itertools.product(("a", "b", "ab"), filter(None, texts), texts)
    ]
    assert len({one.name for one in identities}) == len(identities) == 3 * 39 * 40


@pytest.mark.parametrize(
    ("user", "server", "name"),
    [
        ("alice", "", "ws-alice-mlhub"),
        ("alice", "gpu1", "ws-alice-mlhub-gpu1"),
        ("alice", "my-long-run", "ws-alice-mlhub-my-long-run"),
        ("a" * 54, "", f"ws-{'a' * 54}-mlhub"),
    ],
)
def test_a_plain_name_is_readable(user: str, server: str, name: str) -> None:
    assert WorkspaceId(hub="mlhub", user=user, server=server).name == name


@pytest.mark.parametrize(
    ("user", "server", "readable"),
    [
        ("foo.bar", "", "ws-foo-bar-mlhub"),
        ("foo-bar", "", "ws-foo-bar-mlhub"),
        ("Alice", "", "ws-alice-mlhub"),
        ("a-b-mlhub-c", "", "ws-a-b-mlhub-c-mlhub"),
        ("m\u00fcller@x.org", "gpu1", "ws-m-ller-x-org-mlhub-gpu1"),
        ("a" * 55, "", f"ws-{'a' * 42}"),
        ("\u5f20", "", "ws-mlhub"),
    ],
)
def test_a_name_that_loses_something_says_what_it_can(user: str, server: str, readable: str) -> None:
    name = WorkspaceId(hub="mlhub", user=user, server=server).name
    assert re.fullmatch(rf"{readable}--[a-z2-7]{{16}}", name)


@pytest.mark.parametrize(
    "fields", [{"hub": "ML"}, {"hub": "a-b"}, {"hub": ""}, {"hub": "a" * 17}, {"user": ""}, {"server": "s" * 256}]
)
def test_an_identity_that_can_not_be_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        WorkspaceId(**({"hub": "mlhub", "user": "alice", "server": ""} | fields))


KEY = re.compile(r"[-/_=a-zA-Z0-9]+")


@settings(deadline=None)
@given(st.lists(st.text(alphabet="ab/=._-~%@: \u00fc", max_size=12), min_size=2, max_size=30, unique=True))
def test_every_route_has_a_key_of_its_own_that_the_bus_takes(routes: list[str]) -> None:
    keys = [route_key(route) for route in routes]
    assert len(set(keys)) == len(keys)
    assert all(KEY.fullmatch(key) for key in keys)


def test_fingerprints_become_keys_without_meeting() -> None:
    prints = [f"SHA256:{''.join(letters)}" for letters in itertools.product("aA0+/", repeat=3)]
    keys = {ssh_key_key(one) for one in prints}
    assert len(keys) == len(prints)
    assert all(KEY.fullmatch(key) for key in keys)
