"""What the fields of the options form may hold, by profile: for sliders, hints and the cards."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from mlhub_hub.pages.words import cores, gib, size
from mlhub_shared.contracts.options import ENGINE_SHM, validate
from mlhub_shared.contracts.policy import OptionsError, Policy, Profile, gpus_in_words
from mlhub_shared.contracts.workspace import WorkspaceSpec

_TOP_CPU, _TOP_GIB, _TOP_SHM_GIB = 16.0, 64.0, 8.0
"""Where the sliders end if neither the policy nor a machine sets a maximum; the number beside them may go further."""

_SMALL = 2.0
"""Up to here a slider takes small steps."""


@dataclass(frozen=True)
class FieldLimits:
    """Of one field, in the unit that it shows."""

    top: float
    """Where its slider ends."""
    most: float | None
    """None: no maximum."""
    usual: float | None
    """What an empty field means. None: as much as the machine can give."""
    hint: str
    step: float = 0.5
    """Of the slider; the number beside it takes any fraction."""


@dataclass(frozen=True)
class Largest:
    """The largest machine, as far as the workers tell."""

    cpu: float | None = None
    mem: int | None = None


UNKNOWN = Largest()


@dataclass(frozen=True)
class Limits:
    """Of one profile, or of the backend where there are no profiles."""

    cpu: FieldLimits
    mem: FieldLimits
    shm: FieldLimits
    gpus_hint: str
    max_gpus: int | None
    """None: no maximum."""

    @property
    def as_json(self) -> str:
        """For the script that changes the fields with the profile; keys are the fields' names."""
        fields = {"cpu_limit": self.cpu, "mem_limit": self.mem, "shm_size": self.shm}
        values: dict[str, Any] = {name: asdict(limits) for name, limits in fields.items()}
        return json.dumps(values | {"gpus": {"hint": self.gpus_hint, "most": self.max_gpus}})


@dataclass(frozen=True)
class ProfileCard:
    """One profile to choose."""

    name: str
    title: str
    description: str
    image: str
    facts: str
    """What it has by default and at most."""
    limits: Limits
    is_chosen: bool


def cards_of(policy: Policy, chosen: str | None, largest: Largest) -> list[ProfileCard]:
    """The profiles; the default one is chosen where none of this name is there."""
    names = {profile.name for profile in policy.profiles}
    picked = chosen if chosen in names else (policy.profiles[0].name if policy.profiles else None)
    return [
        ProfileCard(
            name=profile.name,
            title=profile.title,
            description=profile.description,
            image=profile.image,
            facts=_facts(policy, profile),
            limits=limits_of(policy, profile, largest),
            is_chosen=profile.name == picked,
        )
        for profile in policy.profiles
    ]


def usual_spec(policy: Policy, profile: str | None) -> WorkspaceSpec:
    """What somebody gets who chooses nothing but a profile."""
    try:
        return validate({"profile": profile} if profile else {}, policy)
    except OptionsError:
        return WorkspaceSpec(profile=profile)


def limits_of(policy: Policy, profile: Profile | None = None, largest: Largest = UNKNOWN) -> Limits:
    """What policy, profile and the total of one user leave for each field."""
    usual = usual_spec(policy, profile.name if profile else None)
    max_cpu = _least(policy.most("cpu", profile), policy.user_max_cpu)
    max_mem = _least(policy.most("mem", profile), policy.user_max_mem)
    max_shm = policy.most("shm", profile)
    max_gpus = _least(policy.most("gpus", profile), policy.user_max_gpus)
    top_cpu = max_cpu or largest.cpu or _TOP_CPU
    return Limits(
        cpu=FieldLimits(
            top=top_cpu,
            step=_step(top_cpu),
            most=max_cpu,
            usual=usual.cpu_limit,
            hint=_hint(_words(max_cpu, cores), _words(usual.cpu_limit, cores)),
        ),
        mem=_memory(max_mem, usual.mem_limit, largest.mem, _TOP_GIB),
        shm=_memory(max_shm, usual.shm_size or ENGINE_SHM, None, _TOP_SHM_GIB),
        gpus_hint=_gpus_hint(max_gpus, is_counted=policy.gpus_counted),
        max_gpus=None if max_gpus is None else int(max_gpus),
    )


def _memory(most: float | None, usual: int | None, largest: int | None, top: float) -> FieldLimits:
    ends = most or largest
    top = float(gib(int(ends))) if ends else top
    return FieldLimits(
        top=top,
        step=_step(top),
        most=float(gib(int(most))) if most else None,
        usual=float(gib(usual)) if usual else None,
        hint=_hint(_words(most, lambda count: size(int(count))), _words(usual, lambda count: size(int(count)))),
    )


def _step(top: float) -> float:
    return 0.1 if top <= _SMALL else 0.5


def _facts(policy: Policy, profile: Profile) -> str:
    usual = usual_spec(policy, profile.name)
    limits = limits_of(policy, profile)
    has = [_words(usual.cpu_limit, cores), f"{size(usual.mem_limit)} memory" if usual.mem_limit else None]
    most = [
        _words(limits.cpu.most, cores),
        f"{limits.mem.most:g} GiB" if limits.mem.most else None,
        _words(limits.max_gpus, gpus_in_words),
    ]
    default, at_most = ", ".join(filter(None, has)), ", ".join(filter(None, most))
    words = [default or "As much as the machine can give", f"at most {at_most}" if at_most else ""]
    return "; ".join(filter(None, words)) + "."


def _gpus_hint(most: float | None, *, is_counted: bool) -> str:
    if most == 0:
        return "This profile may have none."
    at_most = f" At most {most:g}." if most is not None else ""
    if is_counted:
        return f"How many; the cluster chooses which.{at_most} Empty: none."
    return f"Empty: none. “all”, or numbers such as 0,1.{at_most}"


def _hint(most: str | None, default: str | None) -> str:
    at_most = f"At most {most}. " if most else ""
    if default or most:
        return f"{at_most}Empty: {default or most}."
    return "Empty: as much as the machine can give."


def _words(value: float | None, say: Any) -> str | None:
    return str(say(value)) if value else None


def _least(*values: float | None) -> float | None:
    return min((value for value in values if value is not None), default=None)
