"""What people may ask for: the form, the URL and the REST API are judged here, and nowhere else."""

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlhub_shared.contracts.environment import MAX_ENV_BYTES
from mlhub_shared.contracts.options import ENGINE_SHM, split_secrets, validate
from mlhub_shared.contracts.policy import OptionsError, Policy, Profile, check_spec
from mlhub_shared.contracts.sizes import parse_bytes
from mlhub_shared.contracts.workspace import WorkspaceSpec

OPEN = Policy(images_allowed=True, images=("*",), gpus_allowed=True)
TIGHT = Policy(
    max_cpu=4,
    max_mem=8 * 2**30,
    max_shm=2**30,
    max_days_to_live=7,
    default_cpu=1,
    default_mem=2**30,
    default_days_to_live=2,
    images_allowed=True,
)
GIB = 2**30


@pytest.mark.parametrize(
    ("option", "value", "field", "expected"),
    [
        ("cpu_limit", 2, "cpu_limit", 2.0),
        ("cpu_limit", "0.5", "cpu_limit", 0.5),
        ("cpu_limit", "", "cpu_limit", None),
        ("mem_limit", 2, "mem_limit", 2 * GIB),
        ("mem_limit", 0.5, "mem_limit", GIB // 2),
        ("mem_limit", "2", "mem_limit", 2 * GIB),
        ("mem_limit", "512M", "mem_limit", 512 * 2**20),
        ("mem_limit", " 1.5 gib ", "mem_limit", GIB * 3 // 2),
        ("mem_limit", "65536kB", "mem_limit", 2**26),
        ("mem_limit", "1T", "mem_limit", 2**40),
        ("mem_limit", "", "mem_limit", None),
        ("shm_size", "256m", "shm_size", 256 * 2**20),
        ("gpus", "all", "gpus", "all"),
        ("gpus", "0,2", "gpus", "0,2"),
        ("gpus", "", "gpus", None),
        (
            "image",
            "quay.io/jupyter/minimal-notebook:2026-01-01",
            "image",
            "quay.io/jupyter/minimal-notebook:2026-01-01",
        ),
        ("profile", "", "profile", None),
        ("env", {"A": "1", "_b": ""}, "env", {"A": "1", "_b": ""}),
        ("secret_env", {"KEY_B": None, "KEY_A": "x"}, "secret_env", ("KEY_A", "KEY_B")),
        ("days_to_live", 1.5, "lifetime", timedelta(hours=36)),
        ("days_to_live", "0.0001", "lifetime", timedelta(days=0.0001)),
        ("days_to_live", 0, "lifetime", None),
        ("days_to_live", "", "lifetime", None),
        ("is_mount_volume", "false", "is_mount_volume", False),
    ],
)
def test_an_option_becomes_what_it_means(option: str, value: object, field: str, expected: object) -> None:
    assert getattr(validate({option: value}, OPEN), field) == expected


NONSENSE: dict[str, list[object]] = {
    "cpu_limit": [0, -1, 0.001, "many", "nan", float("inf"), [], 10**400, 1e308, 1e9],
    "mem_limit": [
        *(0, -1, True, "1K", "2X", "G", "1e3", "-2G", [1], {}, float("nan"), float("inf")),
        *(10**400, 1e308, "9" * 400, 10**12, "1\u212a", "\u0663G"),
    ],
    "shm_size": ["0", "lots"],
    "gpus": ["none", "0,", "-1", "0;1", "all,0", "0,1\n", "\u0663", "count:1", 1, 0, "9" * 300, 10**400],
    "image": ["x" * 257, 5, ["a"], "a b", "-x", "a\n", "<b>"],
    "env": [
        *("A=1", ["A"], {"1A": "x"}, {"A-B": "x"}, {"": "x"}, {"A\n": "x"}, {"A": 1}, {"A": None}, {"A": "x\0y"}),
        *({"A": "\ud800"}, {"JUPYTERHUB_API_URL": "x"}, {"MLHUB_X": "x"}, {"JPY_API_TOKEN": "x"}),
        {"A": "x" * MAX_ENV_BYTES},
    ],
    "secret_env": [{"JUPYTERHUB_API_TOKEN": "x"}, {"A": "x" * 10**6}, "secret"],
    "days_to_live": [-1, "soon", 36501, float("nan"), float("inf"), 10**400],
    "is_mount_volume": ["maybe"],
    "profile": ["x", 1],
    "display_name": ["x" * 65, 1],
    "cmd": ["rm -rf /"],
    "": [1],
}


@pytest.mark.parametrize("option", NONSENSE)
def test_what_makes_no_sense_is_refused_by_name(option: str) -> None:
    for value in NONSENSE[option]:
        with pytest.raises(OptionsError) as refused:
            pytest.fail(f"{str(value)[:50]!r} became {validate({option: value}, OPEN)}")
        assert refused.value.field == option
        assert len(str(refused.value)) < 400


COUNTED = OPEN.model_copy(update={"gpus_counted": True, "max_gpus": 4})


@pytest.mark.parametrize(
    ("asked", "spec"), [("2", "count:2"), (2, "count:2"), ("04", "count:4"), ("0", None), (0, None), ("", None)]
)
def test_where_gpus_are_counted_their_number_is_asked_for(asked: object, spec: str | None) -> None:
    assert validate({"gpus": asked}, COUNTED).gpus == spec
    assert validate({"gpus": asked}, COUNTED).gpu_count == int(spec.removeprefix("count:") if spec else 0)


@pytest.mark.parametrize(
    "asked", ["all", "0,1", "-1", "1.5", "two", "\u0662", "2\n", "count:2", True, -1, 1.5, "9" * 99, 10**400]
)
def test_where_gpus_are_counted_nothing_but_a_number_will_do(asked: object) -> None:
    with pytest.raises(OptionsError) as refused:
        pytest.fail(f"{asked!r} became {validate({'gpus': asked}, COUNTED)}")
    assert refused.value.field == "gpus"
    if isinstance(asked, str):
        assert refused.value.message == "say how many, such as 2: which ones is the cluster's to choose"


def test_ids_are_told_from_numbers() -> None:
    with pytest.raises(OptionsError, match='say which, such as "0,1", or "all"'):
        validate({"gpus": 2}, OPEN)
    with pytest.raises(OptionsError, match="must be at most 4 GPUs"):
        validate({"gpus": "5"}, COUNTED)
    with pytest.raises(OptionsError, match=r"must be at most 1 GPU$"):
        validate({"gpus": "2"}, COUNTED.model_copy(update={"max_gpus": 1}))


@pytest.mark.parametrize(
    ("profile", "policy", "most"), [(None, None, 0), (None, 3, 3), (2, None, 2), (4, 3, 3), (0, 3, 0)]
)
def test_where_gpus_are_counted_there_are_those_that_somebody_has_said(
    profile: int | None, policy: int | None, most: int
) -> None:
    kind = Profile(name="kind", image="img", max_gpus=profile)
    cluster = COUNTED.model_copy(update={"max_gpus": policy, "profiles": (kind,), "images_allowed": True})
    if most:
        check_spec(WorkspaceSpec(profile="kind", gpus=f"count:{most}"), cluster)
    with pytest.raises(OptionsError, match=f"must be at most {most} GPU" if most else "there are none"):
        check_spec(WorkspaceSpec(profile="kind", gpus=f"count:{most + 1}"), cluster)


@pytest.mark.parametrize(
    "gpus", ["all", "0,1", "2", "count:", "count:0", "count:x", "count:-1", "count:2,3", "count:5"]
)
def test_a_worker_that_counts_gpus_believes_no_other_wish(gpus: str) -> None:
    check_spec(WorkspaceSpec(gpus="count:4"), COUNTED)
    with pytest.raises(OptionsError):
        check_spec(WorkspaceSpec(gpus=gpus), COUNTED)
    with pytest.raises(OptionsError):
        check_spec(WorkspaceSpec(gpus="count:1"), OPEN)


def test_a_refusal_does_not_repeat_a_secret() -> None:
    for options in (
        {"secret_env": {"A B": "canary-7"}},
        {"env": {"A": "canary-7\0"}},
        {"secret_env": {"A": ["canary-7"]}},
    ):
        with pytest.raises(OptionsError) as refused:
            validate(options, OPEN)
        assert "canary-7" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"cpu_limit": 4.5}, "cpu_limit"),
        ({"mem_limit": "8.1G"}, "mem_limit"),
        ({"shm_size": "2G"}, "shm_size"),
        ({"days_to_live": 8}, "days_to_live"),
        ({"days_to_live": 0}, "days_to_live"),
        ({"image": "x"}, "image"),
        ({"gpus": "all"}, "gpus"),
    ],
)
def test_nobody_gets_more_than_the_policy_allows(options: dict[str, Any], field: str) -> None:
    with pytest.raises(OptionsError) as refused:
        validate(options, TIGHT)
    assert refused.value.field == field


def test_who_asks_for_the_most_gets_it() -> None:
    spec = validate({"cpu_limit": 4, "mem_limit": "8G", "shm_size": "1G", "days_to_live": 7}, TIGHT)
    check_spec(spec, TIGHT)
    assert (spec.cpu_limit, spec.mem_limit, spec.lifetime) == (4, 8 * GIB, timedelta(days=7))


def test_who_asks_for_nothing_gets_the_default_then_the_maximum() -> None:
    spec = validate({}, TIGHT)
    assert (spec.cpu_limit, spec.mem_limit, spec.lifetime) == (1, GIB, timedelta(days=2))
    spec = validate({}, Policy(max_cpu=4, max_mem=GIB, max_days_to_live=7))
    assert (spec.cpu_limit, spec.mem_limit, spec.lifetime) == (4, GIB, timedelta(days=7))
    assert validate({}, Policy()) == WorkspaceSpec()


@pytest.mark.parametrize(
    ("default", "most", "given"), [(30, 7, 7), (2, 7, 2), (0, 7, 7), (30, None, 30), (0, None, None)]
)
def test_a_default_beyond_the_maximum_of_days_refuses_nobody(
    default: float, most: float | None, given: float | None
) -> None:
    policy = Policy(default_days_to_live=default, max_days_to_live=most)
    assert validate({}, policy).lifetime == (timedelta(days=given) if given else None)


@pytest.mark.parametrize(
    ("default", "most", "given"),
    [
        ("8G", 4 * GIB, 4 * GIB),
        ("1G", 4 * GIB, GIB),
        ("1G", None, GIB),
        (None, 4 * GIB, ENGINE_SHM),
        (None, 2**25, 2**25),
        (None, None, None),
    ],
)
def test_nobody_gets_more_shared_memory_than_is_allowed_by_not_asking(
    default: str | None, most: int | None, given: int | None
) -> None:
    profile = Profile.model_validate({"name": "a", "image": "a", "default_shm": default})
    assert validate({}, Policy(profiles=(profile,), max_shm=most, images_allowed=True)).shm_size == given


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image": "x"}, "image: this backend runs no images"),
        ({"gpus": "0"}, "gpus: this backend has no GPUs to give"),
        ({"shm_size": "1G"}, "shm_size: this backend can't limit /dev/shm; leave it out"),
        ({"is_mount_volume": False}, "is_mount_volume: this backend keeps the files of every workspace; leave it out"),
        ({"update": True}, "update: this backend runs no images that could be newer; leave it out"),
    ],
)
def test_what_a_backend_without_images_can_t_do_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionsError) as refused:
        validate(options, Policy(max_shm=GIB))
    assert str(refused.value).startswith(said)


def test_a_backend_without_images_takes_what_changes_nothing() -> None:
    spec = validate({"is_mount_volume": True, "update": False, "shm_size": "", "image": ""}, Policy(max_shm=GIB))
    assert spec == WorkspaceSpec()


@pytest.mark.parametrize(
    "spec",
    [
        WorkspaceSpec(cpu_limit=5),
        WorkspaceSpec(cpu_limit=1e308),
        WorkspaceSpec(mem_limit=9 * GIB),
        WorkspaceSpec(shm_size=2 * GIB),
        WorkspaceSpec(image="x"),
        WorkspaceSpec(gpus="all"),
    ],
)
def test_a_worker_does_not_believe_the_hub(spec: WorkspaceSpec) -> None:
    with pytest.raises(OptionsError):
        check_spec(spec, TIGHT)


def test_secrets_are_taken_out_and_only_named() -> None:
    options: dict[str, Any] = {
        "env": {"A": "1", "DB_PASSWORD": "p", "GITHUB_TOKEN": "t", "api_key": "k"},
        "secret_env": {"MINE": "m", "KEPT": None, "GITHUB_TOKEN": "newer"},
    }
    kept, secrets = split_secrets(options)
    assert secrets == {"DB_PASSWORD": "p", "api_key": "k", "GITHUB_TOKEN": "newer", "MINE": "m"}
    assert kept["env"] == {"A": "1"}
    assert kept["secret_env"] == dict.fromkeys(["MINE", "KEPT", "GITHUB_TOKEN", "DB_PASSWORD", "api_key"])
    assert options["env"]["DB_PASSWORD"] == "p", "the caller's own options were changed"
    assert split_secrets(kept) == (kept, {})
    assert validate(kept, OPEN).secret_env == ("DB_PASSWORD", "GITHUB_TOKEN", "KEPT", "MINE", "api_key")


VALUES = st.text(min_size=3, max_size=8).map(lambda text: f"canary-{text}")
NAMES = st.sampled_from(["PASSWORD", "my_secret", "TOKEN_X", "Credentials", "PRIVATEKEY", "DB_PASSWD"])


@settings(deadline=None)
@given(st.dictionaries(NAMES, VALUES), st.dictionaries(st.text(max_size=5), VALUES))
def test_no_secret_value_is_kept(env: dict[str, str], secret_env: dict[str, str]) -> None:
    kept, secrets = split_secrets({"env": env, "secret_env": secret_env})
    assert "canary-" not in json.dumps(kept)
    assert secrets == env | secret_env


@pytest.mark.parametrize("options", [{"env": "PASSWORD=x"}, {"secret_env": ["x"]}, {"env": {"PASSWORD": 5}}, {}])
def test_malformed_parts_are_left_to_be_refused(options: dict[str, Any]) -> None:
    kept, secrets = split_secrets(options)
    assert kept == options
    assert secrets == {}


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=20), st.integers(), st.floats(), st.booleans(), st.none()))
def test_any_size_is_a_number_or_refused(value: object) -> None:
    try:
        size = parse_bytes(value)
    except ValueError:
        return
    assert size <= 2**60
