"""The form of a workspace's options: what its fields hold, and what becomes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlhub_hub.pages.words import cores, gib, size
from mlhub_shared.contracts.options import validate
from mlhub_shared.contracts.policy import OptionsError, Policy
from mlhub_shared.contracts.sizes import parse_bytes

SIMPLE_FIELDS = ("cpu_limit", "mem_limit", "shm_size", "gpus", "days_to_live", "image", "profile")
"""Fields that hold one text, under the option's own key."""

_SIZES = ("mem_limit", "shm_size")
_BLANK_ROWS = 1
_DEFAULT_TOP_CPU, _DEFAULT_TOP_GIB = 16.0, 64.0
"""Where the sliders end if the policy sets no maximum; the number beside them may go further."""

Formdata = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class EnvRow:
    """One variable of the environment."""

    name: str = ""
    value: str = ""
    secret: bool = False
    is_kept: bool = False
    """A secret whose value is stored and not shown."""


@dataclass(frozen=True)
class Limits:
    """What the fields may hold, for the sliders and the hints under them."""

    cpu_top: float
    mem_top: float
    """GiB."""
    cpu_hint: str
    mem_hint: str
    days_hint: str
    max_cpu: float | None
    max_mem_gib: str | None
    usual_cpu: float | None
    usual_mem_gib: str | None
    max_days: float | None
    images: bool
    gpus: bool


@dataclass(frozen=True)
class FormView:
    """All that the template of the form shows."""

    values: dict[str, str]
    env: list[EnvRow]
    limits: Limits
    errors: dict[str, str] = field(default_factory=dict)
    """By field; `form` for what belongs to none."""


def options_from_form(formdata: Formdata) -> dict[str, Any]:
    """`user_options` as the REST API takes them, from the fields of the form; checks nothing."""
    options: dict[str, Any] = {}
    for key in SIMPLE_FIELDS:
        if text := _first(formdata, key).strip():
            options[key] = text
    env: dict[str, str] = {}
    secret: dict[str, str | None] = {}
    for row in env_rows(formdata):
        if row.secret:
            # An empty field stands for the value that is stored.
            secret[row.name] = row.value or None
        else:
            env[row.name] = row.value
    if env:
        options["env"] = env
    if secret:
        options["secret_env"] = secret
    return options


def env_rows(formdata: Formdata) -> list[EnvRow]:
    """The variables that have a name."""
    names, values = formdata.get("env_name", ()), formdata.get("env_value", ())
    kinds = formdata.get("env_kind", ())
    rows = []
    for index, name in enumerate(names):
        if not name.strip():
            continue
        value = values[index] if index < len(values) else ""
        kind = kinds[index] if index < len(kinds) else "plain"
        secret = kind == "secret"
        rows.append(EnvRow(name.strip(), value, secret=secret, is_kept=secret and not value))
    return rows


def check(options: dict[str, Any], policy: Policy) -> dict[str, str]:
    """Every field that the policy refuses, each with a sentence, by the same validation as the REST API's."""
    errors: dict[str, str] = {}
    remaining = dict(options)
    while True:
        try:
            validate(remaining, policy)
        except OptionsError as error:
            field_name = "env" if error.field == "secret_env" else error.field
            errors.setdefault(field_name, _sentence(error))
            if remaining.pop(error.field, None) is None:
                return errors
        else:
            return errors


def view_of_options(options: Mapping[str, Any], policy: Policy) -> FormView:
    """The form filled in with the options that a workspace was last started with."""
    values = {key: str(options[key]) for key in SIMPLE_FIELDS if options.get(key) is not None}
    for key in _SIZES:
        if key in values:
            values[key] = _as_gib(options[key])
    env, secret = options.get("env"), options.get("secret_env")
    rows = [EnvRow(str(name), str(value)) for name, value in (env if isinstance(env, dict) else {}).items()]
    names = secret if isinstance(secret, dict) else {}
    rows += [EnvRow(str(name), "", secret=True, is_kept=True) for name in names]
    return FormView(values, [*rows, *_blank(rows)], limits_of(policy))


def view_of_form(formdata: Formdata, policy: Policy, errors: dict[str, str]) -> FormView:
    """The form as it was sent, with what is wrong in it."""
    values = {key: _first(formdata, key) for key in (*SIMPLE_FIELDS, "name", "display_name")}
    rows = env_rows(formdata)
    return FormView(values, [*rows, *_blank(rows)], limits_of(policy), errors)


def limits_of(policy: Policy) -> Limits:
    """What the policy means for the fields."""
    usual_mem = policy.default_mem or policy.max_mem
    max_mem = float(gib(policy.max_mem)) if policy.max_mem else None
    return Limits(
        cpu_top=policy.max_cpu or _DEFAULT_TOP_CPU,
        mem_top=max_mem or _DEFAULT_TOP_GIB,
        cpu_hint=_hint(
            cores(policy.max_cpu) if policy.max_cpu else None,
            cores(policy.default_cpu) if policy.default_cpu else None,
        ),
        mem_hint=_hint(
            size(policy.max_mem) if policy.max_mem else None,
            size(policy.default_mem) if policy.default_mem else None,
        ),
        days_hint=_days_hint(policy),
        max_cpu=policy.max_cpu,
        usual_cpu=policy.default_cpu or policy.max_cpu,
        usual_mem_gib=gib(usual_mem) if usual_mem else None,
        max_mem_gib=gib(policy.max_mem) if policy.max_mem else None,
        max_days=policy.max_days_to_live,
        images=policy.images_allowed,
        gpus=policy.gpus_allowed,
    )


def _hint(most: str | None, default: str | None) -> str:
    at_most = f"At most {most}. " if most else ""
    if default or most:
        return f"{at_most}Empty: {default or most}."
    return "Empty: no limit."


def _days_hint(policy: Policy) -> str:
    most = policy.max_days_to_live
    default = policy.default_days_to_live or most
    fractions = "Parts of a day too, such as 0.5."
    if most:
        return f"{fractions} At most {most:g}. Empty: {default:g}."
    if default:
        return f"{fractions} Empty: {default:g}. 0: it never stops by itself."
    return f"{fractions} Empty: it never stops by itself."


def _blank(rows: list[EnvRow]) -> list[EnvRow]:
    return [] if rows else [EnvRow()] * _BLANK_ROWS


def _first(formdata: Formdata, key: str) -> str:
    values = formdata.get(key)
    return values[0] if values else ""


def _as_gib(value: object) -> str:
    try:
        return gib(parse_bytes(value))
    except ValueError:
        return str(value)


def _sentence(error: OptionsError) -> str:
    message = error.message
    if message.endswith(" bytes"):
        words = message.split()
        message = " ".join([*words[:-2], size(int(words[-2]))]) if words[-2].isdigit() else message
    return f"{message[:1].upper()}{message[1:]}{'' if message.endswith('.') else '.'}"
