"""The form of options: what its fields become, and what it says of mistakes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlhub_hub.pages.form import EnvRow, check, days_hint, options_from_form, view_of_form, view_of_options
from mlhub_hub.pages.limits import limits_of
from mlhub_shared.contracts.options import split_secrets, validate
from mlhub_shared.contracts.policy import Policy, Profile
from mlhub_shared.contracts.workspace import WorkspaceSpec

GIB = 1024**3


def test_fields_become_the_options_of_the_rest_api() -> None:
    options = options_from_form(
        {
            "_xsrf": ["x"],
            "name": ["gpu1"],
            "cpu_limit": ["2.5"],
            "mem_limit": [" 4 "],
            "days_to_live": ["0.5"],
            "image": [""],
            "env_name": ["A", "", "TOKEN", "KEPT"],
            "env_value": [" a=b\n", "lost", "hush", ""],
            "env_kind": ["plain", "plain", "secret", "secret"],
        }
    )
    assert options == {
        "cpu_limit": "2.5",
        "mem_limit": "4",
        "days_to_live": "0.5",
        "env": {"A": " a=b\n"},
        "secret_env": {"TOKEN": "hush", "KEPT": None},
    }
    spec = validate(options, Policy())
    assert (spec.cpu_limit, spec.mem_limit, spec.env) == (2.5, 4 * GIB, {"A": " a=b\n"})


def test_an_empty_form_asks_for_nothing() -> None:
    assert options_from_form({"cpu_limit": [""], "env_name": [""], "env_value": [""]}) == {}


def test_every_mistake_is_named_beside_its_field() -> None:
    policy = Policy(max_cpu=8, max_mem=32 * GIB, max_days_to_live=7)
    options: dict[str, Any] = {
        "cpu_limit": "99",
        "mem_limit": "64",
        "days_to_live": "0",
        "image": "evil:latest",
        "secret_env": {"MLHUB_X": "1"},
    }
    errors = check(options, policy)
    assert errors.keys() == {"cpu_limit", "mem_limit", "days_to_live", "image", "env"}
    assert errors["cpu_limit"] == "Must be at most 8 cores."
    assert errors["mem_limit"] == "Must be at most 32 GiB."
    assert options["cpu_limit"] == "99", "what was asked for is left as it was"


@pytest.mark.parametrize("value", ["-1", "nan", "much", "1e400"])
def test_numbers_that_are_none_are_refused(value: str) -> None:
    assert "cpu_limit" in check({"cpu_limit": value}, Policy(max_cpu=8))


def test_the_form_shows_what_was_used_last_but_no_secret() -> None:
    kept, _ = split_secrets({"mem_limit": "512M", "env": {"A": "b", "API_KEY": "hush"}, "secret_env": {"X": "hush"}})
    view = view_of_options(kept, Policy())
    assert view.values == {"mem_limit": "0.5"}
    assert view.env == [
        EnvRow("A", "b"),
        EnvRow("X", "", secret=True, is_kept=True),
        EnvRow("API_KEY", "", secret=True, is_kept=True),
    ]
    assert "hush" not in repr(view)


def test_a_form_with_mistakes_comes_back_as_it_was_sent() -> None:
    view = view_of_form({"name": ["A--b"], "cpu_limit": ["99"], "env_name": ["A"]}, Policy(), {"cpu_limit": "No."})
    assert (view.values["name"], view.values["cpu_limit"], view.errors) == ("A--b", "99", {"cpu_limit": "No."})
    assert view.env == [EnvRow("A")]


def test_the_limits_of_the_policy_are_said() -> None:
    policy = Policy(max_cpu=8, default_cpu=2, max_mem=32 * GIB, max_days_to_live=7, default_days_to_live=1)
    limits = limits_of(policy)
    assert (limits.cpu.hint, limits.mem.hint) == ("At most 8 cores. Empty: 2 cores.", "At most 32 GiB. Empty: 32 GiB.")
    assert days_hint(policy).endswith("At most 7. Empty: 1.")
    assert limits_of(Policy()).cpu.hint == "Empty: as much as the machine can give."


SMALL = Profile(name="small", display_name="Small", image="img:1", default_cpu=1, max_cpu=2, default_mem=2)
LARGE = Profile(name="large", image="img:2", default_cpu=4, max_gpus=2, default_shm=1, max_shm=4)
PROFILES = Policy(
    max_cpu=8, max_gpus=4, user_max_cpu=6, images_allowed=True, gpus_allowed=True, profiles=(SMALL, LARGE)
)


def test_each_profile_has_a_card_with_what_it_gives_and_allows() -> None:
    small, large = view_of_options({}, PROFILES).cards
    assert (small.title, small.facts, small.is_chosen) == (
        "Small",
        "1 core, 2 GiB memory; at most 2 cores, 4 GPUs.",
        True,
    )
    assert (large.title, large.facts) == ("large", "4 cores; at most 6 cores, 2 GPUs."), "his own total is less than 8"


def test_the_fields_are_held_to_the_profile_that_is_chosen() -> None:
    for chosen, most, usual in (("small", 2, 1), ("large", 6, 4), ("gone-since", 2, 1)):
        view = view_of_options({"profile": chosen}, PROFILES)
        assert (view.limits.cpu.most, view.limits.cpu.usual) == (most, usual), chosen
    view = view_of_options({"profile": "large"}, PROFILES)
    assert view.limits.shm.hint == "At most 4 GiB. Empty: 1 GiB."
    assert view.limits.gpus_hint.endswith("At most 2.")
    assert view.widest == {"cpu_limit": 6, "mem_limit": None, "shm_size": None, "gpus": 4}
    sent = json.loads(view.cards[0].limits.as_json)
    assert sent["cpu_limit"] == {
        "top": 2,
        "most": 2,
        "usual": 1,
        "hint": "At most 2 cores. Empty: 1 core.",
        "step": 0.1,
    }


def test_where_gpus_are_counted_the_form_asks_for_a_number() -> None:
    none = Profile(name="none", image="img:3", max_gpus=0)
    counted = PROFILES.model_copy(update={"gpus_counted": True, "profiles": (SMALL, LARGE, none)})
    view = view_of_options({"profile": "large", "gpus": 2}, counted)
    assert (view.gpus_counted, view.values["gpus"]) == (True, "2")
    assert view.limits.gpus_hint == "How many; the cluster chooses which. At most 2. Empty: none."
    assert [json.loads(card.limits.as_json)["gpus"]["most"] for card in view.cards] == [4, 2, 0]
    assert view_of_options({"profile": "none"}, counted).limits.gpus_hint == "This profile may have none."
    assert check({"profile": "large", "gpus": "2"}, counted) == {}
    for asked, said in (("3", "Must be at most 2 GPUs."), ("all", "Say how many, such as 2")):
        assert check({"profile": "large", "gpus": asked}, counted)["gpus"].startswith(said)


def test_a_cluster_whose_administrator_tells_of_no_gpus_offers_none() -> None:
    silent = PROFILES.model_copy(update={"gpus_counted": True, "max_gpus": None, "profiles": (SMALL,)})
    view = view_of_options({}, silent)
    assert (view.widest["gpus"], view.limits.gpus_hint) == (0, "This profile may have none.")
    assert view_of_options({}, silent.model_copy(update={"profiles": (SMALL, LARGE)})).widest["gpus"] == 2


def test_an_image_of_ones_own_is_asked_for_only_where_one_is_allowed() -> None:
    assert view_of_options({}, PROFILES).images is None
    allowed = PROFILES.model_copy(update={"images": ("quay.io/jupyter/*",)})
    assert view_of_options({"image": "quay.io/jupyter/x"}, allowed).images == ("quay.io/jupyter/*",)
    assert view_of_options({"image": "img:1"}, allowed).values["image"] == "", "it is the profile's"
    assert "must match one of quay.io/jupyter/*" in check({"image": "evil"}, allowed)["image"]
    assert "choose one of the profiles" in check({"image": "evil"}, PROFILES)["image"].lower()


def test_the_volume_can_be_declined_and_what_becomes_of_it_is_said() -> None:
    assert "is_mount_volume" not in options_from_form({"cpu_limit": ["1"]})
    assert options_from_form({"is_mount_volume": ["false"]}) == {"is_mount_volume": False}
    assert options_from_form({"is_mount_volume": ["false", "true"]}) == {"is_mount_volume": True}
    kept = PROFILES.model_copy(update={"keep_volumes_days": 7})
    assert "kept for 7 days more" in str(view_of_options({}, kept).volume_hint)
    assert "deleted too" in str(view_of_options({}, PROFILES).volume_hint)
    assert view_of_options({}, Policy()).volume_hint is None
    for options in ({"is_mount_volume": False}, {"is_mount_volume": "false"}):
        assert not view_of_options(options, PROFILES).is_mount_volume
    assert view_of_form({"is_mount_volume": ["false", "true"]}, PROFILES, {}).is_mount_volume
    assert not view_of_form({"is_mount_volume": ["false"]}, PROFILES, {}).is_mount_volume


def test_whether_ssh_starts_it_is_a_box_that_is_ticked_unless_somebody_cleared_it() -> None:
    policy = Policy()
    assert view_of_options({}, policy).start_on_ssh
    cleared = options_from_form({"start_on_ssh": ["false"]})
    assert cleared == {"start_on_ssh": False}
    assert not view_of_options(cleared, policy).start_on_ssh
    assert options_from_form({"start_on_ssh": ["false", "true"]}) == {}
    assert not view_of_form({"start_on_ssh": ["false"]}, policy, {}).start_on_ssh


def test_what_the_user_has_already_counts() -> None:
    others = [WorkspaceSpec(cpu_limit=4)]
    assert check({"profile": "small", "cpu_limit": "2"}, PROFILES, others) == {}
    assert check({"profile": "large"}, PROFILES, others) == {
        "cpu_limit": "Your workspaces together may have 6 cores, and 2 are left."
    }
    most = PROFILES.model_copy(update={"user_max_workspaces": 1})
    assert check({}, most, others) == {"form": "No more than 1 of your workspaces may run at a time."}


@given(
    st.dictionaries(
        st.sampled_from(["cpu_limit", "mem_limit", "days_to_live", "env_name", "env_value", "env_kind", "x"]),
        st.lists(st.text(), max_size=4),
    )
)
def test_no_form_is_too_strange(formdata: dict[str, list[str]]) -> None:
    options = options_from_form(formdata)
    errors = check(options, Policy(max_cpu=8))
    view_of_form(formdata, Policy(), errors)
    view_of_options(options, Policy())


@pytest.mark.parametrize(
    "options",
    [
        {"env": "text"},
        {"env": None},
        {"secret_env": [1]},
        {"mem_limit": {"a": 1}},
        {"cpu_limit": [2]},
        {"env": {"A": 1}},
    ],
)
def test_options_that_a_script_left_behind_still_show_a_form(options: dict[str, Any]) -> None:
    view_of_options(options, Policy())
