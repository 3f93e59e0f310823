"""The options people choose for a workspace, and the one place that decides whether they may have them."""

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
)

from mlhub_shared.contracts.workspace import WorkspaceSpec

MAX_ENV_BYTES = 64 * 1024
"""Of all names and values together: the kernel refuses to start a process with much more."""

RESERVED_ENV = ("JUPYTERHUB_", "JPY_", "MLHUB_")
"""Prefixes of the variables that the hub itself sets."""

_SECRET_NAME = re.compile(r"passw|secret|token|credential|api_?key|private_?key", re.IGNORECASE)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# ASCII: there are digits and a K beyond it that nothing here counts with.
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", re.IGNORECASE | re.ASCII)
_FACTORS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_MAX_BYTES = 2**60
_EMPTY = (None, "")


class OptionsError(ValueError):
    """An option this user can't have, as a sentence; `field` is the option's key."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class Policy(BaseModel):
    """The most that anybody may ask for, and what those get who ask for nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_cpu: PositiveFloat | None = None
    """Cores. None: no maximum."""
    max_mem: PositiveInt | None = None
    """Bytes. None: no maximum."""
    max_shm: PositiveInt | None = None
    """Bytes. None: no maximum."""
    max_days_to_live: PositiveFloat | None = None
    """None: no maximum, and workspaces may live for ever."""
    default_cpu: PositiveFloat | None = None
    default_mem: PositiveInt | None = None
    default_days_to_live: float = 0
    """0: never expires."""
    images_allowed: bool = False
    """The backend runs images; elsewhere asking for one is an error."""
    gpus_allowed: bool = False
    """The backend has GPUs to give."""


def parse_bytes(value: object) -> int:
    """Bytes of `2G`, `512M`, `1.5GiB` or of a bare number of GB; ValueError otherwise, and above 1 EiB."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        number, unit = max(-1, min(value, _MAX_BYTES)), "G"
    else:
        match = _BYTES.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ValueError("must be a size such as 2G or 512M")
        number, unit = float(match[1]), match[2].upper() or "G"
    size = number * _FACTORS[unit]
    if not size <= _MAX_BYTES:
        raise ValueError("is larger than any machine")
    return int(size)


def _size(value: object) -> int | None:
    return None if value in _EMPTY else parse_bytes(value)


def _blank_is_none(value: object) -> object:
    return None if value == "" else value


# The bounds stand inside the union: outside they would be asked of None too.
Days = Annotated[float, Field(ge=0, le=36500)]
Gpus = Annotated[str, Field(pattern=r"^(all|[0-9]+(,[0-9]+)*)$")]
Cores = Annotated[PositiveFloat, Field(allow_inf_nan=False)]
Size = Annotated[PositiveInt | None, BeforeValidator(_size)]
Text = Annotated[Annotated[str, Field(max_length=256)] | None, BeforeValidator(_blank_is_none)]


class WorkspaceOptions(BaseModel):
    """`user_options` as the form, the URL and the REST API give them."""

    model_config = ConfigDict(extra="forbid")

    profile: Text = None
    image: Text = None
    cpu_limit: Annotated[Cores | None, BeforeValidator(_blank_is_none)] = None
    """Cores, fractions too."""
    mem_limit: Size = None
    """Byte specification; a bare number means GB."""
    shm_size: Size = None
    gpus: Annotated[Gpus | None, BeforeValidator(_blank_is_none)] = None
    env: dict[str, str] = Field(default_factory=dict)
    secret_env: dict[str, str | None] = Field(default_factory=dict)
    """None as value: keep the one that is stored."""
    days_to_live: Annotated[Days | None, BeforeValidator(_blank_is_none)] = None
    """Days, fractions too; 0: for ever. None: the default."""
    is_mount_volume: bool = True

    @field_validator("env", "secret_env")
    @classmethod
    def _names_and_values(cls, env: dict[str, str | None]) -> dict[str, str | None]:
        for name, value in env.items():
            if not _ENV_NAME.fullmatch(name):
                raise ValueError(f"{name[:40]!r} is not a name for an environment variable")
            if name.startswith(RESERVED_ENV):
                raise ValueError(f"{name} is set by the hub")
            if value is not None and "\0" in value:
                raise ValueError(f"the value of {name} contains a zero byte")
        if sum(len(name.encode()) + len((value or "").encode()) for name, value in env.items()) > MAX_ENV_BYTES:
            raise ValueError(f"must be at most {MAX_ENV_BYTES // 1024} KiB in all")
        return env


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
    _at_most("cpu_limit", options.cpu_limit, policy.max_cpu, "{:g} cores")
    _at_most("mem_limit", options.mem_limit, policy.max_mem, "{} bytes")
    _at_most("shm_size", options.shm_size, policy.max_shm, "{} bytes")
    if options.image is not None and not policy.images_allowed:
        raise OptionsError("image", "workspaces here run as local processes, without an image")
    if options.gpus is not None and not policy.gpus_allowed:
        raise OptionsError("gpus", "there are no GPUs to give here")
    return WorkspaceSpec(
        profile=options.profile,
        image=options.image,
        cpu_limit=options.cpu_limit or policy.default_cpu or policy.max_cpu,
        mem_limit=options.mem_limit or policy.default_mem or policy.max_mem,
        shm_size=options.shm_size,
        gpus=options.gpus,
        env=options.env,
        secret_env=tuple(sorted(options.secret_env)),
        lifetime=_lifetime(options.days_to_live, policy),
        is_mount_volume=options.is_mount_volume,
    )


def check_spec(spec: WorkspaceSpec, policy: Policy) -> None:
    """The worker's own look at what it is asked to run; OptionsError if its policy does not allow it."""
    _at_most("cpu_limit", spec.cpu_limit, policy.max_cpu, "{:g} cores")
    _at_most("mem_limit", spec.mem_limit, policy.max_mem, "{} bytes")
    _at_most("shm_size", spec.shm_size, policy.max_shm, "{} bytes")
    if spec.image is not None and not policy.images_allowed:
        raise OptionsError("image", "this backend runs no images")
    if spec.gpus is not None and not policy.gpus_allowed:
        raise OptionsError("gpus", "this backend has no GPUs to give")


def _is_secret(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, str) and _SECRET_NAME.search(name) is not None


def _lifetime(days: float | None, policy: Policy) -> timedelta | None:
    days = policy.default_days_to_live or policy.max_days_to_live or 0 if days is None else days
    if policy.max_days_to_live is not None:
        if days == 0:
            raise OptionsError("days_to_live", f"must be more than 0 and at most {policy.max_days_to_live:g} days here")
        _at_most("days_to_live", days, policy.max_days_to_live, "{:g} days")
    return timedelta(days=days) if days else None


def _at_most(field: str, value: float | None, most: float | None, unit: str) -> None:
    if value is not None and most is not None and value > most:
        raise OptionsError(field, f"must be at most {unit.format(most)}")


def _first(error: ValidationError) -> OptionsError:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = str(first["loc"][0]) if first["loc"] else "user_options"
    if first["type"] == "extra_forbidden":
        known = ", ".join(WorkspaceOptions.model_fields)
        return OptionsError(field[:40], f"is not an option; there are {known}")
    return OptionsError(field, first["msg"].removeprefix("Value error, "))
