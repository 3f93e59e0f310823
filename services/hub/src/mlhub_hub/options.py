"""The options of a workspace on their way from a request into JupyterHub: checked, and without their secrets."""

from collections.abc import Iterable
from typing import Any

from jupyterhub import orm
from jupyterhub.slugs import is_valid_display_name, normalise_unicode
from sqlalchemy import event
from tornado import web

from mlhub_hub.context import Before, HubContext
from mlhub_hub.modes import check_start
from mlhub_hub.spawner import MAX_TITLE, BusSpawner, kept_options
from mlhub_hub.totals import others_up
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.options import WorkspaceOptions, split_secrets, validate
from mlhub_shared.contracts.policy import OptionsError, Policy, check_totals
from mlhub_shared.contracts.workspace import WorkspaceSpec
from mlhub_shared.errors import Temporary

Options = dict[str, Any]
_ENVIRONMENTS = {"env", "secret_env"}

START_ON_SSH = "start_on_ssh"
"""The option of whether connecting by SSH starts a stopped workspace; the hub's own, no start is needed for it."""


class Hidden(str):
    """A text that nobody sees in a log."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def check(options: Options, policy: Policy, others: Iterable[WorkspaceSpec] = ()) -> WorkspaceSpec:
    """What to run for these options; a 400 with a sentence for people if nobody may have them beside the others."""
    try:
        spec = validate(options, policy)
        check_totals(spec, others, policy)
        title_of(options)
    except OptionsError as error:
        raise web.HTTPError(400, str(error)) from None
    return spec


def title_of(options: Options) -> str | None:
    """The display name among these options as JupyterHub wants it; OptionsError if it can't be one."""
    if (given := options.get("display_name")) in (None, ""):
        return None
    title = normalise_unicode(" ".join(str(given).split()))
    if not is_valid_display_name(title):
        raise OptionsError("display_name", "must be letters, digits, signs and single spaces")
    if len(title) > MAX_TITLE:
        raise OptionsError("display_name", f"must be at most {MAX_TITLE} characters")
    return str(title)


def is_update(options: Options) -> bool:
    """Whether these options, which are valid, ask for the newest image."""
    return str(options.get("update", "")).strip().lower() in {"true", "1", "on", "t", "y", "yes"}


def starts_on_ssh(options: Options) -> bool:
    """Whether these options, which are valid, let an SSH connection start the workspace."""
    return WorkspaceOptions.model_validate({START_ON_SSH: options.get(START_ON_SSH, True)}).start_on_ssh


def hidden(options: Options) -> Options:
    """The same options, with secret values that don't show in logs."""
    shown = dict(options)
    secret = split_secrets(options)[1]
    for name in _ENVIRONMENTS & options.keys():
        if isinstance(options[name], dict):
            shown[name] = {key: Hidden(value) if key in secret else value for key, value in options[name].items()}
    return shown


def guard(context: HubContext) -> None:
    """Keep of every `user_options` only what is for ever; for the life of the process.

    Secrets go to their bucket, a display name to where JupyterHub keeps it, and an update is for one start.
    """

    def on_set(target: Any, value: Any, old: Any, _initiator: Any) -> Any:
        if not isinstance(value, dict) or target.user is None:
            return value
        workspace = context.workspace(target.user.name, str(target.name))
        context.unapplied[target] = Before(old if isinstance(old, dict) else {}, target.display_name)
        context.secret_values.hold(workspace, split_secrets(value)[1])
        if is_update(value):
            context.updates.add(workspace.name)
        if (title := title_of(value)) is not None:
            target.display_name = title
        return kept_options(value)

    event.listen(orm.Spawner.user_options, "set", on_set, retval=True, active_history=True)


async def accept(context: HubContext, workspace: WorkspaceId, orm_spawner: orm.Spawner) -> None:
    """Keep what was set for a workspace that is not started now; a 503 where the secret values can't be stored."""
    context.unapplied.pop(orm_spawner, None)
    context.updates.discard(workspace.name)
    try:
        await context.secret_values.keep(workspace)
    except Temporary:
        raise web.HTTPError(503, "The secret values could not be stored. Set them again in a moment.") from None


def apply_user_options(spawner: BusSpawner, options: Options) -> None:
    """JupyterHub's hook of every start: refuse what is not allowed, and then keep nothing of it."""
    context, workspace = spawner.mlhub, spawner.workspace
    before = context.unapplied.pop(spawner.orm_spawner, None)
    held = context.secret_values.held(workspace)
    try:
        if spawner.handler is not None:
            now = Before(spawner.orm_spawner.user_options, spawner.orm_spawner.display_name)
            has_changed = before is not None and before != now
            check_start(context, spawner.handler, spawner.user.name, spawner.name, has_changed=has_changed)
        spec = check(with_values(options, held), context.policy, others_up(context, workspace))
    except web.HTTPError:
        context.secret_values.drop(workspace)
        context.updates.discard(workspace.name)
        if before is not None:
            spawner.orm_spawner.user_options = spawner.user_options = before.options
            spawner.orm_spawner.display_name = before.display_name
            context.unapplied.pop(spawner.orm_spawner, None)
        raise
    # Nothing is awaited since the look at the others: of two starts at the same time, the second one sees the first.
    spawner.starting = spec
    # JupyterHub tells a workspace its limits in its environment.
    spawner.mem_limit, spawner.cpu_limit = spec.mem_limit, spec.cpu_limit


def with_values(options: Options, values: dict[str, str]) -> Options:
    """Options with the secret values that are known, for a look at all of it together."""
    marks = options.get("secret_env")
    if not isinstance(marks, dict):
        return options
    return options | {"secret_env": {name: values.get(name) for name in marks}}
