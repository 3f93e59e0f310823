"""Profiles, images, maxima and totals: what hub and worker hold every workspace to."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mlhub_shared.contracts.options import validate
from mlhub_shared.contracts.policy import OptionsError, Policy, Profile, check_spec, check_totals
from mlhub_shared.contracts.workspace import WorkspaceSpec
from mlhub_shared.runtime.settings import PolicySettings

GIB = 2**30
SMALL = Profile(
    name="small", image="quay.io/jupyter/base-notebook:1", default_cpu=1, max_cpu=2, default_mem="1G", max_mem="2G"
)
LARGE = Profile(name="large", image="mltooling/ml-workspace:0.13.2", port=8080, home="/workspace", max_gpus=1)
POLICY = Policy(
    profiles=(SMALL, LARGE),
    images=("quay.io/jupyter/*",),
    images_allowed=True,
    gpus_allowed=True,
    max_cpu=8,
    default_cpu=4,
    max_gpus=2,
)


def refusal(options: dict[str, Any], policy: Policy = POLICY) -> str:
    with pytest.raises(OptionsError) as refused:
        validate(options, policy)
    return str(refused.value)


def test_who_chooses_nothing_gets_the_first_profile() -> None:
    spec = validate({}, POLICY)
    assert (spec.profile, spec.image, spec.cpu_limit, spec.mem_limit) == ("small", SMALL.image, 1, GIB)


def test_a_profile_brings_its_image_and_the_policy_what_it_leaves_open() -> None:
    spec = validate({"profile": "large"}, POLICY)
    assert (spec.image, spec.cpu_limit, spec.mem_limit) == (LARGE.image, 4, None)


def test_the_default_never_exceeds_what_the_profile_allows() -> None:
    tight = Policy(profiles=(Profile(name="a", image="a", max_cpu=2),), images_allowed=True, default_cpu=4)
    assert validate({}, tight).cpu_limit == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"profile": "huge"}, "profile: there is no 'huge' here; choose one of small, large"),
        ({"cpu_limit": 3}, "cpu_limit: must be at most 2 cores"),
        ({"profile": "large", "cpu_limit": 9}, "cpu_limit: must be at most 8 cores"),
        ({"profile": "large", "gpus": "0,1"}, "gpus: must be at most 1 GPU"),
        ({"profile": "large", "gpus": "all"}, "gpus: must be at most 1 GPU"),
        ({"profile": "small", "mem_limit": "3G"}, "mem_limit: must be at most 2 GiB"),
        ({"image": "evil.example/miner:1"}, "it must match one of quay.io/jupyter/*"),
        ({"profile": "small", "image": "mltooling/ml-workspace:0.13.2"}, "is not allowed here"),
    ],
)
def test_what_is_not_allowed_is_said(options: dict[str, Any], said: str) -> None:
    assert said in refusal(options)


def test_an_image_of_ones_own_stands_in_for_the_profiles() -> None:
    spec = validate({"profile": "large", "image": "quay.io/jupyter/scipy-notebook"}, POLICY)
    assert (spec.profile, spec.image) == ("large", "quay.io/jupyter/scipy-notebook")


@pytest.mark.parametrize(
    ("image", "pattern", "is_allowed"),
    [
        ("mlhub-workspace:2", "mlhub-workspace:*", True),
        ("mlhub-workspace", "mlhub-workspace:*", True),
        ("mlhub-workspace.evil.tld/x:1", "mlhub-workspace*", False),
        ("mlhub-workspace:5000/x", "mlhub-workspace:*", False),
        ("quay.io/jupyter/base-notebook@sha256:0a", "quay.io/jupyter/*", True),
        ("quay.io/jupyter/sub/base-notebook", "quay.io/jupyter/*", False),
        ("evil.tld/quay.io/jupyter/x", "*/jupyter/*", False),
        ("registry.local:5000/team/x", "registry.local:5000/*/x:latest", True),
        ("registry.local:5000/team/x:1", "registry.local:5000/*/x:latest", False),
        ("any.where/at/all:1", "*", True),
        ("any.where/at/all:1", "*:1", False),
    ],
)
def test_a_pattern_stays_in_its_part_of_the_name(image: str, pattern: str, *, is_allowed: bool) -> None:
    policy = POLICY.model_copy(update={"images": (pattern,)})
    assert policy.allows_image(image, SMALL) is is_allowed


def test_the_profiles_that_are_shipped_let_nobody_into_another_registry() -> None:
    example = Path(__file__).parents[2] / "compose" / "config" / "profiles.example.yaml"
    policy = PolicySettings(profiles_file=example).policy(images_allowed=True, gpus_allowed=True)
    assert policy.allows_image("mlhub-workspace:2", None)
    assert not policy.allows_image("mlhub-workspace.evil.tld/x:1", None)


def test_without_patterns_only_profiles_can_be_chosen() -> None:
    policy = POLICY.model_copy(update={"images": ()})
    assert validate({"image": SMALL.image}, policy).image == SMALL.image
    assert "choose one of the profiles" in refusal({"image": "quay.io/jupyter/base-notebook:2"}, policy)


def test_the_worker_refuses_what_the_hub_let_through() -> None:
    for spec in (
        WorkspaceSpec(profile="large", image="evil.example/miner:1"),
        WorkspaceSpec(profile="gone", image=SMALL.image),
        WorkspaceSpec(profile="small", image=SMALL.image, cpu_limit=4),
    ):
        with pytest.raises(OptionsError):
            check_spec(spec, POLICY)


def spec(cpu: float | None = 1, mem: int | None = GIB, gpus: str | None = None) -> WorkspaceSpec:
    return WorkspaceSpec(cpu_limit=cpu, mem_limit=mem, gpus=gpus)


@pytest.mark.parametrize(
    ("limits", "new", "others", "said"),
    [
        ({"user_max_cpu": 4}, spec(2), [spec(1), spec(1)], None),
        ({"user_max_cpu": 4}, spec(2.5), [spec(1), spec(1)], "together may have 4 cores, and 2 are left"),
        ({"user_max_cpu": 4}, spec(None), [], "cpu_limit: must be set"),
        ({"user_max_cpu": 4}, spec(4), [spec(None)], None),
        ({"user_max_mem": 2 * GIB}, spec(mem=2 * GIB), [spec()], "2 GiB of memory, and 1 are left"),
        ({"user_max_gpus": 1}, spec(gpus="0,1"), [], "gpus: your workspaces together may have 1 GPUs"),
        ({"user_max_gpus": 1}, spec(), [spec(gpus="0")], None),
        ({"user_max_workspaces": 2}, spec(), [spec()], None),
        ({"user_max_workspaces": 2}, spec(), [spec(), spec()], "no more than 2 of your workspaces may run at a time"),
        ({}, spec(None, None, "all"), [spec(None, None, "all")] * 9, None),
    ],
)
def test_totals(limits: dict[str, Any], new: WorkspaceSpec, others: list[WorkspaceSpec], said: str | None) -> None:
    policy = Policy(**limits)
    if said is None:
        check_totals(new, others, policy)
        return
    with pytest.raises(OptionsError) as refused:
        check_totals(new, others, policy)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "No Name"},
        {"image": "a b"},
        {"port": 0},
        {"home": "workspace"},
        {"home": "/a:/etc"},
        {"capabilities": ["NET_ADMIN"]},
        {"capabilities": ["SETUID", "ALL"]},
        *({"capabilities": [name]} for name in ("CAP_NET_ADMIN", "cap_all", " all ", "NET_RAW", "SYS_PTRACE")),
        *({"capabilities": [name]} for name in ("DAC_READ_SEARCH", "BPF", "SYS_BOOT", "CAP_SYS_TIME", "SETUID,BPF")),
        {"default_cpu": 4, "max_cpu": 2},
        {"env": {"JUPYTERHUB_API_URL": "x"}},
        {"env": {"MLHUB_WORKSPACE": "x"}},
        {"env": {"A B": "x"}},
        {"privileged": True},
    ],
)
def test_a_profile_that_can_not_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Profile.model_validate({"name": "a", "image": "a"} | wrong)


def test_capabilities_have_one_spelling_and_what_is_refused_is_named() -> None:
    profile = Profile.model_validate({"name": "a", "image": "a", "capabilities": ["CAP_KILL", "setuid", "CHOWN"]})
    assert profile.capabilities == ("KILL", "SETUID", "CHOWN")
    with pytest.raises(ValidationError, match="no workspace may have SYS_TIME; there are AUDIT_WRITE, CHOWN"):
        Profile(name="a", image="a", capabilities=("CAP_SYS_TIME",))


def settings(file: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> PolicySettings:
    file.write_text(text)
    monkeypatch.setenv("MLHUB_PROFILES_FILE", str(file))
    return PolicySettings()


def test_profiles_are_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
profiles:
  - name: small
    image: quay.io/jupyter/base-notebook:1
    default_mem: 512M
    volumes: [{source: /srv/data, target: /data}]
images: ["quay.io/jupyter/*"]
"""
    monkeypatch.setenv("MLHUB_IMAGES", "a/*, b")
    policy = settings(tmp_path / "p.yaml", monkeypatch, text).policy(images_allowed=True, gpus_allowed=True)
    (profile,) = policy.profiles
    assert (profile.default_mem, profile.volumes[0].read_only, profile.title) == (2**29, True, "small")
    assert policy.images == ("a/*", "b", "quay.io/jupyter/*")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("profiles: [", "is not YAML"),
        ("", "is wrong"),
        ("profiles: []", "profiles"),
        ("profiles: [{name: a, image: a}]\nimage: [x]", "image: Extra inputs"),
        ("profiles: [{name: a}]", "profiles.0.image: Field required"),
        ("profiles: [{name: a, image: a}, {name: a, image: b}]", "two profiles have the same name"),
    ],
)
def test_a_wrong_file_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    with pytest.raises(ValueError, match="profiles") as refused:
        settings(tmp_path / "p.yaml", monkeypatch, text).policy(images_allowed=True, gpus_allowed=True)
    assert said in str(refused.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLHUB_PROFILES_FILE", str(tmp_path / "none.yaml"))
    with pytest.raises(ValueError, match="can't be read"):
        PolicySettings().policy(images_allowed=True, gpus_allowed=False)


def test_without_a_file_there_is_one_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFAULT_WORKSPACE_PORT", "8080")
    monkeypatch.setenv("MLHUB_DEFAULT_IMAGE", "mltooling/ml-workspace:0.13.2")
    policy = PolicySettings().policy(images_allowed=True, gpus_allowed=False)
    (profile,) = policy.profiles
    assert (profile.image, profile.port) == ("mltooling/ml-workspace:0.13.2", 8080)
