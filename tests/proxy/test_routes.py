"""Records and routes to tables: pure."""

import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlhub_proxy.routes import GONE, HUB, PROBE, PUBLIC, Change, Tables, of_record, of_route, spellings
from mlhub_proxy.runtime_api import line, word
from mlhub_shared.contracts.services import Route
from mlhub_shared.contracts.workspace import Endpoint, Phase, WorkspaceSpec
from mlhub_shared.errors import Permanent
from tests.support.makers import record

HERE = Endpoint(host="10.0.0.7", port=8888)
NAMES = st.text(min_size=1, max_size=40).filter(lambda name: "/" not in name and name not in (".", ".."))
RESERVED = "!$&'()*+,;=:@"


def normalised(path: str) -> str:
    """What HAProxy makes of a path before it looks it up."""
    upper = re.sub("%[0-9a-fA-F]{2}", lambda found: found[0].upper(), path)
    return re.sub(
        "%([0-9A-F]{2})",
        lambda found: chr(int(found[1], 16)) if re.match("[A-Za-z0-9._~-]", chr(int(found[1], 16))) else found[0],
        upper,
    )


@given(user=NAMES, server=NAMES, lower=st.booleans(), safe=st.sampled_from(["", "@", "!'()*", RESERVED]))
def test_every_way_to_write_a_prefix_is_in_the_table(user: str, server: str, lower: bool, safe: str) -> None:
    entry = record(user, server, phase=Phase.READY, endpoint=HERE, base_url=hub_url(user, server))
    asked = "/".join(["", "user", quote(user, safe=safe), quote(server, safe=safe), ""])
    if lower:
        asked = re.sub("%..", lambda found: found[0].lower(), asked)
    assert of_record(entry, base="/")[PUBLIC, normalised(asked)].startswith(f"10.0.0.7|8888|{entry.name}|")


@given(user=NAMES, server=NAMES)
def test_everything_in_a_table_can_be_sent_to_haproxy(user: str, server: str) -> None:
    entry = record(user, server, phase=Phase.READY, endpoint=HERE, base_url=hub_url(user, server))
    for (_, key), value in of_record(entry, base="/").items():
        assert line(key, value).count("\n") == 1
        assert line(key, value).count(" ") == 1


@given(one=st.tuples(NAMES, NAMES), other=st.tuples(NAMES, NAMES))
def test_two_workspaces_never_share_a_key(one: tuple[str, str], other: tuple[str, str]) -> None:
    def keys(user: str, server: str) -> set[tuple[str, str]]:
        return set(of_record(record(user, server, phase=Phase.FAILED, base_url=hub_url(user, server)), base="/"))

    assert one == other or not keys(*one) & keys(*other)


@given(prefix=st.text(max_size=30))
def test_no_prefix_but_its_own_gets_a_workspace_a_route(prefix: str) -> None:
    entry = record(phase=Phase.READY, endpoint=HERE, base_url=prefix)
    try:
        entries = of_record(entry, base="/")
    except Permanent:
        return
    assert {key for table, key in entries if table == PUBLIC} == {"/user/alice/"}


@given(text=st.text())
def test_a_word_stays_one_word(text: str) -> None:
    try:
        encoded = word(text)
    except Permanent:
        return
    assert re.fullmatch(r"([!-:<-\[\]-~]|\\;)+", encoded)


@pytest.mark.parametrize("text", ["", "a b", "a\nb", "a\tb", "a\\", "a\\;", '"', "\x00", "ä", "a\rb", "\x7f"])
def test_what_could_end_a_word_is_refused(text: str) -> None:
    with pytest.raises(Permanent):
        word(text)


def test_a_prefix_that_is_too_long_is_refused() -> None:
    with pytest.raises(Permanent):
        spellings(f"/{'@' * 5000}/")


@pytest.mark.parametrize("phase", Phase)
def test_each_phase_has_its_place(phase: Phase) -> None:
    default = of_record(record(phase=phase, endpoint=HERE), base="/")
    named = of_record(record(server="gpu1", phase=phase, endpoint=HERE), base="/")
    is_ready = phase is Phase.READY
    assert default.get((PUBLIC, "/user/alice/")) == ("10.0.0.7|8888|ws-alice-test|1|12|any" if is_ready else None)
    assert named[PUBLIC, "/user/alice/gpu1/"] == ("10.0.0.7|8888|ws-alice-test-gpu1|1|17|any" if is_ready else HUB)
    probe = {
        Phase.STARTING: "10.0.0.7|8888",
        Phase.READY: "10.0.0.7|8888",
        Phase.STOPPING: GONE,
        Phase.STOPPED: GONE,
        Phase.FAILED: GONE,
    }
    assert default.get((PROBE, "/user/alice/api")) == probe.get(phase)


def test_a_prefix_below_the_hubs_own() -> None:
    entry = record(phase=Phase.READY, endpoint=HERE, base_url="/jupyter/user/alice/")
    assert (PUBLIC, "/jupyter/user/alice/") in of_record(entry, base="/jupyter/")
    with pytest.raises(Permanent):
        of_record(entry, base="/")


def test_each_spelling_tells_its_own_length() -> None:
    entry = record(user="a@b", phase=Phase.READY, endpoint=HERE, spec=WorkspaceSpec(own_tools=True))
    found = of_record(entry.model_copy(update={"base_url": "/user/a@b/"}), base="/")
    lengths = {key: value.split("|")[4:] for (table, key), value in found.items() if table == PUBLIC}
    assert lengths == {"/user/a@b/": ["10", "own"], "/user/a%40b/": ["12", "own"]}


def test_ipv6_addresses_keep_their_colons() -> None:
    entry = record(phase=Phase.READY, endpoint=Endpoint(host="fd00::7", port=1))
    assert of_record(entry, base="/")[PUBLIC, "/user/alice/"] == "fd00::7|1|ws-alice-test|1|12|any"


def test_a_route_by_name_waits_for_its_address() -> None:
    route = Route(routespec="/services/x/", target="http://cleanup:8084/ignored")
    assert of_route(route, {}, base="/") == {(PUBLIC, "/services/x/"): "_|8084|_"}
    assert of_route(route, {"cleanup": "10.0.0.9"}, base="/") == {(PUBLIC, "/services/x/"): "10.0.0.9|8084|_"}
    assert of_route(Route(routespec="/", target="http://x:1"), {}, base="/") == {}


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.dictionaries(
                st.tuples(st.sampled_from([PUBLIC, PROBE]), st.sampled_from("xyz")), st.sampled_from("12"), max_size=3
            ),
        )
    )
)
def test_changes_lead_to_the_same_table_as_all_at_once(
    steps: list[tuple[str, dict[tuple[str, str], str]]],
) -> None:
    tables = Tables()
    followed: dict[tuple[str, str], str] = {}
    for source, entries in steps:
        for change in tables.put(source, entries):
            slot = (change.table, change.key)
            assert change.existed == (slot in followed)
            assert followed.get(slot) != change.value
            if change.value is None:
                del followed[slot]
            else:
                followed[slot] = change.value
    last = dict(steps)
    for name in (PUBLIC, PROBE):
        expected: dict[str, str] = {}
        for source in sorted(last, reverse=True):
            expected |= {key: value for (table, key), value in last[source].items() if table == name}
        assert tables.table(name) == expected == {key: v for (table, key), v in followed.items() if table == name}


def test_the_hubs_own_route_beats_a_workspaces() -> None:
    tables = Tables()
    slot = (PUBLIC, "/user/x/")
    assert tables.put("workspace/x", {slot: "w"}) == [Change(*slot, value="w", existed=False)]
    assert tables.put("route/x", {slot: "r"}) == [Change(*slot, value="r", existed=True)]
    assert tables.put("workspace/x", {}) == []
    assert tables.put("route/x", {}) == [Change(*slot, value=None, existed=True)]


def hub_url(user: str, server: str) -> str:
    """As JupyterHub writes it."""
    return "/".join(["", "user", quote(user, safe="@~"), *([quote(server, safe="@~")] if server else []), ""])
