"""The three ways a team uses the hub: who may make a workspace, and who may change or delete one."""

from collections.abc import Awaitable, Callable
from typing import Any

from jupyterhub.handlers import BaseHandler
from jupyterhub.utils import maybe_future
from tornado import web

from mlhub_hub.context import HubContext
from mlhub_hub.settings import Workspaces

Limit = Callable[[BaseHandler], Awaitable[int]]

_MANAGES = "admin:servers"
"""The scope of those who make workspaces for others; no user has it for himself."""


def is_manager(handler: BaseHandler, user_name: str) -> bool:
    """Whether this request may do with a user's workspaces what the user may not."""
    return bool(handler.has_scope(f"{_MANAGES}!user={user_name}"))


def named_server_limit(context: HubContext, configured: int | Callable[[BaseHandler], Any]) -> Limit:
    """How many named workspaces a request may make; refuses the request where that is none at all."""
    mode = context.settings.workspaces

    async def limit(handler: BaseHandler) -> int:
        most: int = await maybe_future(configured(handler)) if callable(configured) else configured
        user_name, server_name = _asked_for(handler)
        if mode is Workspaces.SELF_SERVICE or user_name is None or is_manager(handler, user_name):
            return most
        if server_name and not _exists(handler, user_name, server_name):
            raise web.HTTPError(403, _REFUSALS[mode])
        return most

    return limit


def check_start(
    context: HubContext, handler: BaseHandler, user_name: str, server_name: str, *, has_changed: bool
) -> None:
    """Refuse a start that only an admin may ask for: 403. `has_changed`: with other options than last time."""
    if context.settings.workspaces is not Workspaces.HANDED_OUT or is_manager(handler, user_name):
        return
    if has_changed:
        raise web.HTTPError(403, "An admin sets the options of the workspaces here.")
    if not server_name and context.workspaces.value(context.workspace(user_name, "").name) is None:
        raise web.HTTPError(403, _REFUSALS[Workspaces.HANDED_OUT])


def check_rename(context: HubContext, handler: BaseHandler, user_name: str) -> None:
    """Refuse a new name where that would make room for one more workspace: 403."""
    if context.settings.workspaces is not Workspaces.SELF_SERVICE and not is_manager(handler, user_name):
        raise web.HTTPError(403, _REFUSALS[context.settings.workspaces])


def check_delete(context: HubContext, handler: BaseHandler, user_name: str) -> None:
    """Refuse to delete a workspace where its user did not make it: 403."""
    if context.settings.workspaces is not Workspaces.SELF_SERVICE and not is_manager(handler, user_name):
        raise web.HTTPError(403, "Only an admin deletes workspaces here.")


def check_change(context: HubContext, handler: BaseHandler, user_name: str) -> None:
    """Refuse to change a workspace that was handed out: 403."""
    if context.settings.workspaces is Workspaces.HANDED_OUT and not is_manager(handler, user_name):
        raise web.HTTPError(403, "This workspace was handed out by an admin, who alone can change it.")


_REFUSALS = {
    Workspaces.HANDED_OUT: "Workspaces are made by an admin here. Ask one for a workspace of your own.",
    Workspaces.ONE_EACH: "Everybody has one workspace here, and no further ones.",
}


def _asked_for(handler: BaseHandler) -> tuple[str | None, str]:
    """User and server of the request's path; pages that only show the limit have none."""
    user_name, server_name, *_ = [*handler.path_args, None, None]
    return user_name, server_name or ""


def _exists(handler: BaseHandler, user_name: str, server_name: str) -> bool:
    user = handler.find_user(user_name)
    return user is not None and server_name in user.orm_spawners
