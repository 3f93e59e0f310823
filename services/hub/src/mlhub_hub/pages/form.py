"""The form of a workspace's options: what its fields hold, and what becomes of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlhub_hub.pages.limits import UNKNOWN, Largest, Limits, ProfileCard, cards_of, limits_of
from mlhub_hub.pages.words import gib, size
from mlhub_shared.contracts.options import validate
from mlhub_shared.contracts.policy import OptionsError, Policy, check_totals
from mlhub_shared.contracts.sizes import parse_bytes
from mlhub_shared.contracts.workspace import WorkspaceSpec

SIMPLE_FIELDS = ("cpu_limit", "mem_limit", "shm_size", "gpus", "days_to_live", "image", "profile")
"""Fields that hold one text, under the option's own key."""

_NOT_IN_THE_FORM = {"server_name": "form", "secret_env": "env"}
"""Where the form says what is wrong with a field that it has not."""

_NO = {"", "false", "off", "0"}

_BOXES = ("is_mount_volume", "start_on_ssh")
"""Yes or no, and yes where nothing is said."""

_ENVIRONMENTS = {"env": "plain", "secret_env": "secret"}
"""What a link calls them, and the kind of their rows."""

_IN_LINKS = {*SIMPLE_FIELDS, *_ENVIRONMENTS, "is_mount_volume", "start_on_ssh", "display_name"}

_OF_IMAGES = {"profile", "image", "shm_size", "is_mount_volume"}
"""Fields that the form has only where workspaces are made from images."""

_SIZES = {"mem_limit", "shm_size"}
_BLANK_ROWS = 1

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
class FormView:
    """All that the template of the form shows."""

    values: dict[str, str]
    env: list[EnvRow]
    limits: Limits
    """Of the chosen profile."""
    cards: list[ProfileCard]
    days_hint: str
    max_days: float | None
    images: tuple[str, ...] | None
    """Patterns of images that people may name themselves. None: they may not."""
    volume_hint: str | None
    """None: nothing to choose, files are kept."""
    is_mount_volume: bool
    start_on_ssh: bool
    gpus_counted: bool
    """GPUs are asked for by their number."""
    errors: dict[str, str] = field(default_factory=dict)
    """By field; `form` for what belongs to none."""

    @property
    def widest(self) -> dict[str, float | None]:
        """The most that any profile may have, for a browser that can't change a field with the profile."""
        every = [card.limits for card in self.cards] or [self.limits]
        return {
            "cpu_limit": _most([limits.cpu.most for limits in every]),
            "mem_limit": _most([limits.mem.most for limits in every]),
            "shm_size": _most([limits.shm.most for limits in every]),
            "gpus": _most([limits.max_gpus for limits in every]),
        }


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
    if kept := formdata.get("is_mount_volume"):
        # A box that is not ticked is not sent: a hidden field before it says no.
        options["is_mount_volume"] = kept[-1] not in _NO
    if not _is_ticked(formdata, "start_on_ssh"):
        options["start_on_ssh"] = False
    if env:
        options["env"] = env
    if secret:
        options["secret_env"] = secret
    return options


def form_of_link(options: Mapping[str, str]) -> dict[str, list[str]]:
    """The fields of the form for the options that a link names; environments stand there as lines of NAME=VALUE."""
    formdata = {key: [value] for key, value in options.items() if key in _IN_LINKS - _ENVIRONMENTS.keys()}
    for key in _SIZES & formdata.keys():
        formdata[key] = [_as_gib(options[key])]
    lines = [(kind, line) for key, kind in _ENVIRONMENTS.items() for line in options.get(key, "").splitlines()]
    variables = [(kind, *line.strip().partition("=")) for kind, line in lines]
    formdata["env_kind"] = [kind for kind, *_ in variables]
    formdata["env_name"] = [name for _, name, *_ in variables]
    formdata["env_value"] = [value for *_, value in variables]
    return formdata


def unknown_in_link(options: Mapping[str, str]) -> dict[str, str]:
    """What to say of options in a link that the form doesn't have."""
    names = ", ".join(name[:40] for name in sorted(options.keys() - _IN_LINKS))
    return {"form": f"The link asks for what there is not on this page: {names}."} if names else {}


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


def check(options: dict[str, Any], policy: Policy, others: Iterable[WorkspaceSpec] = ()) -> dict[str, str]:
    """Every field that is refused, each with a sentence, by the same validation as the REST API's.

    `others`: what else this user has up.
    """
    errors: dict[str, str] = {}
    remaining, others = dict(options), list(others)
    while True:
        try:
            check_totals(validate(remaining, policy), others, policy)
        except OptionsError as error:
            field_name = _NOT_IN_THE_FORM.get(error.field, error.field)
            is_known = field_name in errors
            errors.setdefault(field_name, _sentence(error))
            if remaining.pop(error.field, None) is None or is_known:
                return errors
        else:
            return errors


def view_of_options(options: Mapping[str, Any], policy: Policy, largest: Largest = UNKNOWN) -> FormView:
    """The form filled in with the options that a workspace was last started with."""
    values = {key: str(options[key]) for key in SIMPLE_FIELDS if options.get(key) is not None}
    for key in _SIZES & values.keys():
        values[key] = _as_gib(options[key])
    env, secret = options.get("env"), options.get("secret_env")
    rows = [EnvRow(str(name), str(value)) for name, value in (env if isinstance(env, dict) else {}).items()]
    names = secret if isinstance(secret, dict) else {}
    rows += [EnvRow(str(name), "", secret=True, is_kept=True) for name in names]
    ticked = {key: str(options.get(key, True)).lower() not in _NO for key in _BOXES}
    return _view(values, rows, policy, largest, ticked)


def view_of_form(formdata: Formdata, policy: Policy, errors: dict[str, str], largest: Largest = UNKNOWN) -> FormView:
    """The form as it was sent, with what is wrong in it."""
    values = {key: _first(formdata, key) for key in (*SIMPLE_FIELDS, "name", "display_name")}
    ticked = {key: _is_ticked(formdata, key) for key in _BOXES}
    view = _view(values, env_rows(formdata), policy, largest, ticked)
    hidden = set() if policy.images_allowed else _OF_IMAGES & errors.keys()
    shown = {key: sentence for key, sentence in errors.items() if key not in hidden}
    if hidden:
        shown["form"] = " ".join(errors[key] for key in sorted({"form"} & errors.keys() | hidden))
    return replace(view, errors=shown)


def _view(
    values: dict[str, str], rows: list[EnvRow], policy: Policy, largest: Largest, ticked: Mapping[str, bool]
) -> FormView:
    cards = cards_of(policy, values.get("profile"), largest)
    chosen = [card for card in cards if card.is_chosen]
    if chosen and values.get("image") == chosen[0].image:
        values = values | {"image": ""}
    return FormView(
        values=values,
        env=[*rows, *_blank(rows)],
        limits=chosen[0].limits if chosen else limits_of(policy, None, largest),
        cards=cards,
        days_hint=days_hint(policy),
        max_days=policy.max_days_to_live,
        images=policy.images if policy.images_allowed and policy.images else None,
        volume_hint=volume_hint(policy) if policy.images_allowed else None,
        is_mount_volume=ticked["is_mount_volume"],
        start_on_ssh=ticked["start_on_ssh"],
        gpus_counted=policy.gpus_counted,
    )


def days_hint(policy: Policy) -> str:
    """What the field of days may hold, and means when it is empty."""
    most = policy.max_days_to_live
    default = policy.default_days_to_live or most
    fractions = "Parts of a day too, such as 0.5."
    if most:
        return f"{fractions} At most {most:g}. Empty: {default:g}."
    if default:
        return f"{fractions} Empty: {default:g}. 0: it never stops by itself."
    return f"{fractions} Empty: it never stops by itself."


def volume_hint(policy: Policy) -> str:
    """What becomes of a volume."""
    days = policy.keep_volumes_days
    kept = (
        f"When you delete it, they are kept for {_days(days)} more, then deleted."
        if days
        else ("When you delete it, they are deleted too.")
    )
    return f"Files outlive stops and updates. {kept} Without one, every file is gone as soon as it stops."


def _days(days: float) -> str:
    return "1 day" if days == 1 else f"{days:g} days"


def _blank(rows: list[EnvRow]) -> list[EnvRow]:
    return [] if rows else [EnvRow()] * _BLANK_ROWS


def _is_ticked(formdata: Formdata, key: str) -> bool:
    return (formdata.get(key) or ["true"])[-1] not in _NO


def _first(formdata: Formdata, key: str) -> str:
    values = formdata.get(key)
    return values[0] if values else ""


def _most(values: list[float | None]) -> float | None:
    return None if None in values else max(value for value in values if value is not None)


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
