"""The form of options: what its fields become, and what it says of mistakes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlhub_hub.pages.form import EnvRow, check, limits_of, options_from_form, view_of_form, view_of_options
from mlhub_shared.contracts.options import split_secrets, validate
from mlhub_shared.contracts.policy import Policy

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
    limits = limits_of(Policy(max_cpu=8, default_cpu=2, max_mem=32 * GIB, max_days_to_live=7, default_days_to_live=1))
    assert (limits.cpu_hint, limits.mem_hint) == ("At most 8 cores. Empty: 2 cores.", "At most 32 GiB. Empty: 32 GiB.")
    assert limits.days_hint.endswith("At most 7. Empty: 1.")
    assert limits_of(Policy()).cpu_hint == "Empty: no limit."


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
