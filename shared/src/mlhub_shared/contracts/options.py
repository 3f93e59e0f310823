"""The options people choose for a workspace, and the one place that decides whether they may have them."""

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationError,
)

from mlhub_shared.contracts.environment import check_environment
from mlhub_shared.contracts.policy import (
    HOW_MANY_GPUS,
    WHICH_GPUS,
    ImageName,
    OptionsError,
    Policy,
    Profile,
    check_spec,
)
from mlhub_shared.contracts.sizes import Size
from mlhub_shared.contracts.workspace import COUNTED, WorkspaceSpec

ENGINE_SHM = 64 * 1024**2
"""Bytes of /dev/shm that a container has whose options say nothing."""

_ML_WORKSPACE = re.compile(r"(^|/)ml-workspace(-[a-z0-9]+)?(:|@|$)")

_GPU_IDS, _GPU_COUNT = re.compile(r"all|[0-9]+(,[0-9]+)*"), re.compile(r"[0-9]{1,9}")

_SECRET_NAME = re.compile(r"passw|secret|token|credential|api_?key|private_?key", re.IGNORECASE)


def _blank_is_none(value: object) -> object:
    return None if value == "" else value


# The bounds stand inside the union: outside they would be asked of None too.
Days = Annotated[float, Field(ge=0, le=36500)]
Gpus = Annotated[str, Field(max_length=256)] | Annotated[int, Field(ge=0, lt=10**9, strict=True)]
Cores = Annotated[PositiveFloat, Field(allow_inf_nan=False)]
Name = Annotated[Annotated[str, Field(max_length=64)] | None, BeforeValidator(_blank_is_none)]
Text = Annotated[Annotated[str, Field(max_length=256)] | None, BeforeValidator(_blank_is_none)]


class WorkspaceOptions(BaseModel):
    """`user_options` as the form, the URL and the REST API give them."""

    model_config = ConfigDict(extra="forbid")

    profile: Text = None
    image: Annotated[ImageName | None, BeforeValidator(_blank_is_none)] = None
    """None: the profile's."""
    cpu_limit: Annotated[Cores | None, BeforeValidator(_blank_is_none)] = None
    """Cores, fractions too."""
    mem_limit: Size = None
    """Byte specification; a bare number means GB."""
    shm_size: Size = None
    gpus: Annotated[Gpus | None, BeforeValidator(_blank_is_none)] = None
    """How many, where the policy counts them; elsewhere their ids, or `all`."""
    env: Annotated[dict[str, str], AfterValidator(check_environment)] = Field(default_factory=dict)
    secret_env: Annotated[dict[str, str | None], AfterValidator(check_environment)] = Field(default_factory=dict)
    """None as value: keep the one that is stored."""
    days_to_live: Annotated[Days | None, BeforeValidator(_blank_is_none)] = None
    """Days, fractions too; 0: for ever. None: the default."""
    is_mount_volume: bool = True
    """Keep what lies in the profile's home over a stop."""
    display_name: Name = None
    """What people call it."""
    start_on_ssh: bool = True
    """Connecting by SSH starts it when it is stopped."""
    update: bool = False
    """Fetch the image anew even if it is here."""


def split_secrets(user_options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Take every secret value out of `user_options`: (what may be kept, secret values by name).

    Secret is what stands in `secret_env`, and whatever in `env` has a name like a password's.
    What is kept names each secret with None as its value. Malformed parts are left for `validate`.
    """
    env, secret = user_options.get("env"), user_options.get("secret_env")
    kept = dict(user_options)
    found: dict[str, str] = {}
    marks: dict[str, None] = {}
    if isinstance(env, dict):
        found |= {name: value for name, value in env.items() if _is_secret(name, value)}
        kept["env"] = {name: value for name, value in env.items() if name not in found}
    if isinstance(secret, dict):
        found |= {name: value for name, value in secret.items() if isinstance(value, str)}
        marks |= dict.fromkeys(secret)
    marks |= dict.fromkeys(found)
    if marks:
        kept["secret_env"] = marks
    return kept, found


def validate(user_options: dict[str, Any], policy: Policy) -> WorkspaceSpec:
    """What to run for these options; OptionsError with a sentence for people if this policy does not allow it."""
    try:
        options = WorkspaceOptions.model_validate(user_options)
    except ValidationError as error:
        raise _first(error) from None
    profile = policy.profile(options.profile)
    image = options.image or (profile.image if profile else None)
    spec = WorkspaceSpec(
        profile=profile.name if profile else None,
        image=image,
        display_name=options.display_name,
        cpu_limit=options.cpu_limit or _default("cpu", profile, policy),
        mem_limit=options.mem_limit or _whole(_default("mem", profile, policy)),
        shm_size=options.shm_size or _shm(profile, policy),
        gpus=_gpus(options.gpus, policy),
        env=options.env,
        secret_env=tuple(sorted(options.secret_env)),
        lifetime=_lifetime(options.days_to_live, policy),
        is_mount_volume=options.is_mount_volume,
        own_tools=_its_own(profile.own_tools if profile else None, image),
        own_ssh=_its_own(profile.own_ssh if profile else None, image),
        update=options.update,
    )
    check_spec(spec, policy)
    return spec


def _gpus(asked: str | int | None, policy: Policy) -> str | None:
    if asked is None:
        return None
    if not policy.gpus_counted:
        if not _GPU_IDS.fullmatch(str(asked)) or isinstance(asked, int):
            raise OptionsError("gpus", WHICH_GPUS)
        return str(asked)
    if not _GPU_COUNT.fullmatch(str(asked)):
        raise OptionsError("gpus", HOW_MANY_GPUS)
    count = int(asked)
    return f"{COUNTED}{count}" if count else None


def _its_own(said: bool | None, image: str | None) -> bool:
    """Whether an image does by itself what ml-workspace, in all its flavours, does."""
    return said if said is not None else _ML_WORKSPACE.search(image or "") is not None


def _is_secret(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, str) and _SECRET_NAME.search(name) is not None


def _default(what: str, profile: Profile | None, policy: Policy) -> float | None:
    """The profile's, else the policy's as far as the profile allows it, else the most there is."""
    own, most = getattr(profile, f"default_{what}", None), policy.most(what, profile)
    wanted = own or getattr(policy, f"default_{what}") or most
    return min(wanted, most) if wanted is not None and most is not None else wanted


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _shm(profile: Profile | None, policy: Policy) -> int | None:
    """The profile's, as far as it may be had; None: the engine's own, where that is not too much either."""
    usual, most = profile.default_shm if profile else None, policy.most("shm", profile)
    if most is None or not policy.images_allowed:
        return usual
    return int(min(usual or ENGINE_SHM, most))


def _lifetime(days: float | None, policy: Policy) -> timedelta | None:
    if days is None:
        usual, most = policy.default_days_to_live, policy.max_days_to_live
        days = min(usual or most, most) if most is not None else usual
    return timedelta(days=days) if days else None


def _first(error: ValidationError) -> OptionsError:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = str(first["loc"][0]) if first["loc"] else "user_options"
    if first["type"] == "extra_forbidden":
        known = ", ".join(WorkspaceOptions.model_fields)
        return OptionsError(field[:40], f"is not an option; there are {known}")
    return OptionsError(field, first["msg"].removeprefix("Value error, "))
