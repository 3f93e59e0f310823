"""The options of a workspace on their way from a request into JupyterHub: checked, and without their secrets."""

from typing import Any

from jupyterhub import orm
from sqlalchemy import event
from tornado import web

from mlhub_hub.context import HubContext
from mlhub_hub.modes import check_start
from mlhub_hub.spawner import BusSpawner
from mlhub_shared.contracts.options import split_secrets, validate
from mlhub_shared.contracts.policy import OptionsError, Policy
from mlhub_shared.contracts.workspace import WorkspaceSpec

Options = dict[str, Any]
Form = dict[str, list[str]]

_FORM_ONLY = {"_xsrf"}
_ENVIRONMENTS = {"env", "secret_env"}


class Hidden(str):
    """A text that nobody sees in a log."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def check(options: Options, policy: Policy) -> WorkspaceSpec:
    """What to run for these options; a 400 with a sentence for people if nobody may have them."""
    try:
        return validate(options, policy)
    except OptionsError as error:
        raise web.HTTPError(400, str(error)) from None


def from_form(form: Form, policy: Policy) -> Options:
    """The options of a form or a query: one field for each option, environments as lines of NAME=VALUE."""
    options: Options = {}
    for name, values in form.items():
        if name in _FORM_ONLY or not values:
            continue
        if name in _ENVIRONMENTS:
            options[name] = _environment(name, values[-1])
        elif values[-1] != "":
            options[name] = values[-1]
    if "is_mount_volume" in options:
        options["is_mount_volume"] = options["is_mount_volume"] in {"on", "true", "1"}
    check(options, policy)
    return options


def hidden(options: Options) -> Options:
    """The same options, with secret values that don't show in logs."""
    shown = dict(options)
    secret = split_secrets(options)[1]
    for name in _ENVIRONMENTS & options.keys():
        if isinstance(options[name], dict):
            shown[name] = {key: Hidden(value) if key in secret else value for key, value in options[name].items()}
    return shown


def guard(context: HubContext) -> None:
    """Take the secrets out of every `user_options` before they reach the database; for the life of the process."""

    def on_set(target: orm.Spawner, value: Any, old: Any, _initiator: Any) -> Any:
        if not isinstance(value, dict) or target.user is None:
            return value
        context.unapplied[target] = old if isinstance(old, dict) else {}
        kept, secret = split_secrets(value)
        context.secret_values.hold(context.workspace(target.user.name, str(target.name)), secret)
        return kept

    event.listen(orm.Spawner.user_options, "set", on_set, retval=True, active_history=True)


def apply_user_options(spawner: BusSpawner, options: Options) -> None:
    """JupyterHub's hook of every start: refuse what is not allowed, and then keep nothing of it."""
    context, workspace = spawner.mlhub, spawner.workspace
    before = context.unapplied.pop(spawner.orm_spawner, None)
    held = context.secret_values.held(workspace)
    try:
        if spawner.handler is not None:
            has_changed = before is not None and before != spawner.orm_spawner.user_options
            check_start(context, spawner.handler, spawner.user.name, spawner.name, has_changed=has_changed)
        spec = check(with_values(options, held), context.policy)
    except web.HTTPError:
        context.secret_values.drop(workspace)
        if before is not None:
            spawner.orm_spawner.user_options = spawner.user_options = before
            context.unapplied.pop(spawner.orm_spawner, None)
        raise
    # JupyterHub tells a workspace its limits in its environment.
    spawner.mem_limit, spawner.cpu_limit = spec.mem_limit, spec.cpu_limit


def with_values(options: Options, values: dict[str, str]) -> Options:
    """Options with the secret values that are known, for a look at all of it together."""
    marks = options.get("secret_env")
    if not isinstance(marks, dict):
        return options
    return options | {"secret_env": {name: values.get(name) for name in marks}}


def _environment(name: str, text: str) -> dict[str, str]:
    environment: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        key, equals, value = line.partition("=")
        if not equals:
            raise web.HTTPError(400, f"{name}: each line must be NAME=VALUE")
        environment[key.strip()] = value
    return environment
