"""JupyterHub's REST handlers of users and servers, where the bus makes more of a request than JupyterHub knows."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jupyterhub.apihandlers.users import UserAPIHandler, UserServerAPIHandler
from jupyterhub.handlers import BaseHandler
from jupyterhub.scopes import needs_scope
from jupyterhub.spawner import Spawner
from jupyterhub.user import User
from tornado import web

from mlhub_hub import modes, options, services
from mlhub_hub.accepted import AcceptedSpawns
from mlhub_hub.adoption import cancel_spawn
from mlhub_hub.alone import alone, until_removed
from mlhub_hub.auth import deleted_users
from mlhub_hub.auth.key_projection import wake_projection
from mlhub_hub.models import ProgressHandler, SelfHandler, UserListHandler, WorkspaceModels
from mlhub_hub.nodes_api import node_handlers
from mlhub_hub.requester import note_requester
from mlhub_hub.sessions_api import session_handlers
from mlhub_hub.settings import Workspaces
from mlhub_hub.spawner import FOR_ONE_START, kept_options
from mlhub_hub.totals import others_up

Body = dict[str, Any]

_STOPPED_WITHIN = 40
"""Seconds that the servers of a user who is deleted, or his default one, may take to stop."""


_NOT_OPTIONS = {"display_name", "user_options"}

_ALONE = FOR_ONE_START | {options.START_ON_SSH}
"""Options that change nothing of the others where none of those is given."""


class WorkspaceHandler(WorkspaceModels, AcceptedSpawns, UserServerAPIHandler):
    """Checks options before they are kept, stores secret values, and knows the three ways."""

    def get_server_json_body(self) -> Body:
        """The body, with options that anybody may have, and whose secrets don't show in logs."""
        body: Body = super().get_server_json_body()
        if body["user_options"] is None and (plain := {key: body[key] for key in body.keys() - _NOT_OPTIONS}):
            # JupyterHub would take a display name for the sign that these mean nothing.
            body["user_options"] = plain
        wanted = self._wanted(body)
        is_update = wanted is not None and options.is_update(wanted)
        return body | {"display_name": None, "user_options": wanted, "is_update": is_update}

    def get_json_body(self) -> Any:
        """The body; JupyterHub logs the options of a PATCH as they stand in it."""
        body = self._options_gathered(super().get_json_body())
        if self.request.method != "PATCH" or not isinstance(body, dict):
            return body
        if not isinstance(body.get("user_options", {}), dict) or (wanted := self._wanted(body)) is None:
            return body
        return {key: body[key] for key in body.keys() - _NOT_OPTIONS} | {"user_options": wanted}

    @needs_scope("start:servers")
    async def put(self, user_name: str, server_name: str = "") -> None:
        """Create a named workspace without starting it."""
        async with alone(self.mlhub, user_name, [server_name]):
            await super().put(user_name, server_name)
        await self._accept(user_name, server_name)

    @needs_scope("start:servers")
    async def post(self, user_name: str, server_name: str = "") -> None:
        """Start a workspace."""
        self._check_start_on_ssh(user_name, server_name)
        body = self.get_server_json_body()
        # Whatever is refused later than here is no answer any more, only a line in the progress.
        if self.mlhub.settings.workspaces is Workspaces.HANDED_OUT:
            has_changed = self._changes_options(user_name, server_name, body["user_options"])
            modes.check_start(self.mlhub, self, user_name, server_name, has_changed=has_changed)
        self.check_room(user_name, server_name, body["user_options"])
        async with alone(self.mlhub, user_name, [server_name]):
            user = self.find_user(user_name)
            with self.updating(user, server_name, is_asked=body.get("is_update", False)):
                await super().post(user_name, server_name)
            if not user.spawners[server_name].ready:
                # Also for one that has failed already: only its progress says why.
                self.set_status(202)

    @needs_scope("start:servers")
    async def patch(self, user_name: str, server_name: str = "") -> None:
        """Change a stopped workspace; whether SSH starts it, also of one that runs."""
        modes.check_change(self.mlhub, self, user_name)
        body = self._options_gathered(super().get_json_body())
        if _is_only_start_on_ssh(body):
            await self.set_start_on_ssh(user_name, server_name, body["user_options"][options.START_ON_SSH])
            self.finish(self.server_model(self._orm_spawner(user_name, server_name), user=self.find_user(user_name)))
            return
        new_name = body.get("name") if isinstance(body, dict) else None
        if new_name is not None:
            modes.check_rename(self.mlhub, self, user_name)
        async with alone(self.mlhub, user_name, {server_name, str(new_name or server_name)}):
            await super().patch(user_name, server_name)
        await self._accept(user_name, server_name if new_name is None else new_name)

    @needs_scope("delete:servers")
    async def delete(self, user_name: str, server_name: str = "") -> None:
        """Stop a workspace, and remove it if asked to."""
        note_requester(self)
        body = self.get_json_body()
        if not isinstance(body, dict) or not body.get("remove"):
            await super().delete(user_name, server_name)
            return
        modes.check_delete(self.mlhub, self, user_name)
        async with alone(self.mlhub, user_name, [server_name]):
            if not server_name:
                await self._empty_default(user_name)
                return
            await super().delete(user_name, server_name)
            await until_removed(self.find_user(user_name), server_name)

    async def set_start_on_ssh(self, user_name: str, server_name: str, wanted: bool) -> None:
        """Have SSH start a workspace, or no more; 404 if there is none."""
        async with alone(self.mlhub, user_name, [server_name]):
            orm_spawner = self._orm_spawner(user_name, server_name)
            if orm_spawner is None:
                raise web.HTTPError(404, f"{user_name} has no such workspace.")
            changed = dict(orm_spawner.user_options or {}) | {options.START_ON_SSH: wanted}
            spawner = self.find_user(user_name).get_spawner(server_name)
            # JupyterHub starts it with what its wrapper remembers.
            spawner.user_options = orm_spawner.user_options = changed
            self.db.commit()
            await self._accept(user_name, server_name)

    def _check_start_on_ssh(self, user_name: str, server_name: str) -> None:
        """Refuse the start that a connection asks for where the workspace is not to be started so: 403."""
        if not services.is_ssh_gateway(self.current_user):
            return
        user = self.find_user(user_name)
        is_up = user is not None and server_name in user.spawners and user.spawners[server_name].active
        if not is_up and not options.starts_on_ssh(self._stored(user_name, server_name)):
            raise web.HTTPError(403, "Connecting does not start this workspace. Start it on its page, then connect.")

    def check_room(self, user_name: str, server_name: str, given: Body | None = None) -> None:
        """Refuse a start with options that this user can't have beside what he has: 400."""
        wanted = given if given is not None else self._stored(user_name, server_name)
        others = others_up(self.mlhub, self.mlhub.workspace(user_name, server_name))
        options.check(wanted, self.mlhub.policy_now(), others)

    @contextmanager
    def updating(self, user: User | None, server_name: str, *, is_asked: bool) -> Iterator[None]:
        """The start that is asked for meanwhile fetches the image anew; nothing is started for None."""
        if not is_asked or user is None:
            yield
            return
        name = self.mlhub.workspace(user.name, server_name).name
        is_up = server_name in user.spawners and user.spawners[server_name].active
        if not is_up:
            self.mlhub.updates.add(name)
        try:
            yield
        except BaseException:
            if not is_up:
                self.mlhub.updates.discard(name)
            raise

    async def _empty_default(self, user_name: str) -> None:
        """Have nothing left of the default workspace but the entry that JupyterHub keeps for everybody."""
        user = self.find_user(user_name)
        if user is None:
            raise web.HTTPError(404)
        spawner = user.spawners[""]
        await _stop(self, spawner)
        await user._delete_spawner(spawner)
        spawner.user_options = {}
        orm_spawner = spawner.orm_spawner
        orm_spawner.user_options = orm_spawner.started = orm_spawner.display_name = None
        self.db.commit()
        self.set_status(204)

    def _options_gathered(self, body: Any) -> Any:
        """The body of a PATCH; options that stand in it plainly, as a start takes them too, are put together."""
        if self.request.method != "PATCH" or not isinstance(body, dict) or "user_options" in body:
            return body
        plain = {key: body[key] for key in body.keys() - _NOT_OPTIONS - {"name"}}
        rest = {key: body[key] for key in body.keys() - plain.keys()}
        return rest | {"user_options": plain} if plain else body

    def _wanted(self, body: Body) -> Body | None:
        """The options that a body asks for, which anybody may have; None: those there are.

        A display name beside them is one of them: JupyterHub keeps that unchecked, and before a start is accepted.
        """
        given, title = body.get("user_options"), body.get("display_name")
        if not isinstance(title, str | None):
            raise web.HTTPError(400, "display_name must be a string")
        if given is None and not title:
            return None
        asked: Body = (given or {}) | ({"display_name": title} if title else {})
        options.check(asked, self.mlhub.policy)
        if given != {} and (given or {}).keys() <= _ALONE:
            user_name, server_name, *_ = [*self.path_args, ""]
            asked = self._stored(user_name, server_name) | asked
        return options.hidden(asked)

    def _stored(self, user_name: str, server_name: str) -> Body:
        orm_spawner = self._orm_spawner(user_name, server_name)
        return dict((orm_spawner.user_options if orm_spawner else None) or {})

    def _orm_spawner(self, user_name: str, server_name: str) -> Any:
        user = self.find_user(user_name)
        return user.orm_spawners.get(server_name) if user else None

    def _changes_options(self, user_name: str, server_name: str, given: Body | None) -> bool:
        orm_spawner = self._orm_spawner(user_name, server_name)
        if orm_spawner is None or given is None:
            return False
        title = options.title_of(given) or orm_spawner.display_name
        before = (orm_spawner.user_options or {}, orm_spawner.display_name)
        return bool((kept_options(given), title) != before)

    async def _accept(self, user_name: str, server_name: str) -> None:
        orm_spawner = self._orm_spawner(user_name, server_name)
        if orm_spawner is not None:
            await options.accept(self.mlhub, self.mlhub.workspace(user_name, server_name), orm_spawner)


class UserHandler(WorkspaceModels, UserAPIHandler):
    """Deletes a user with all that runs, tells the other services, and refuses what would tear things apart."""

    @needs_scope("delete:users")
    async def delete(self, user_name: str) -> None:
        """Stop all workspaces of a user, then delete him with all he has."""
        note_requester(self)
        user = self.find_user(user_name)
        async with alone(self.mlhub, user_name, list(user.orm_spawners) if user is not None else []):
            if user is not None and user.name != self.current_user.name:
                # JupyterHub stops the default server only, and fails half-way with any other still up.
                active = [spawner for spawner in user.spawners.values() if spawner.active]
                await asyncio.gather(*(_stop(self, spawner) for spawner in active))
            await super().delete(user_name)
        wake_projection(self.settings)
        self.settings[deleted_users.SETTINGS_KEY].wake()

    @needs_scope("admin:users")
    async def patch(self, user_name: str) -> None:
        """Change a user, but never the name of one who has workspaces: they are found by it."""
        body = self.get_json_body()
        if not isinstance(body, dict) or body.get("name", user_name) == user_name:
            await super().patch(user_name)
            return
        user = self.find_user(user_name)
        async with alone(self.mlhub, user_name, list(user.orm_spawners) if user is not None else []):
            if user is not None:
                await self._check_rename(user)
            await super().patch(user_name)
        wake_projection(self.settings)

    async def _check_rename(self, user: User) -> None:
        """Containers, volumes, secrets and orders carry the user's name: nothing of them may be left behind."""
        names = {
            *(name for name, orm_spawner in user.orm_spawners.items() if _is_workspace(orm_spawner)),
            *(known.workspace.server for known in self.mlhub.workspaces.values() if known.workspace.user == user.name),
        }
        if names == {""}:
            message = f"{user.name} has files in the default workspace, which belong to that name: delete it first."
            raise web.HTTPError(400, message)
        if names:
            message = f"{user.name} has workspaces, whose files belong to that name: delete them first."
            raise web.HTTPError(400, message)
        if await self.mlhub.trace_of(self.mlhub.workspace(user.name, "")) is not None:
            raise web.HTTPError(409, f"A workspace of {user.name} is on its way. Try again in a moment.")


async def _stop(handler: BaseHandler, spawner: Spawner) -> None:
    if not spawner.active:
        return
    try:
        async with asyncio.timeout(_STOPPED_WITHIN):
            await cancel_spawn(spawner)
            if not spawner.pending:
                await (await handler.stop_single_user(spawner.user, spawner.name))
            while spawner.active:  # noqa: ASYNC110  (JupyterHub tells nobody)
                await asyncio.sleep(0.1)
    except TimeoutError:
        message = f"The workspace {spawner.user.name}/{spawner.name} is still stopping. Try again in a moment."
        raise web.HTTPError(400, message) from None


def _is_only_start_on_ssh(body: Any) -> bool:
    given = body.get("user_options") if isinstance(body, dict) and body.keys() == {"user_options"} else None
    return isinstance(given, dict) and given in ({options.START_ON_SSH: True}, {options.START_ON_SSH: False})


def _is_workspace(orm_spawner: Any) -> bool:
    """Whether there is more to it than the entry that JupyterHub makes for everybody."""
    return bool(orm_spawner.name) or orm_spawner.started is not None or orm_spawner.user_options is not None


def rest_handlers() -> list[tuple[Any, ...]]:
    """What stands in front of JupyterHub's own handlers, under the hub's prefix."""
    return [
        *node_handlers(),
        *session_handlers(),
        (r"/api/user", SelfHandler),
        (r"/api/users", UserListHandler),
        (r"/api/users/([^/]+)/servers/([^/]*)/progress", ProgressHandler),
        (r"/api/users/([^/]+)/server/progress", ProgressHandler),
        (r"/api/users/([^/]+)/servers/([^/]*)", WorkspaceHandler),
        (r"/api/users/([^/]+)/server", WorkspaceHandler),
        (r"/api/users/([^/]+)", UserHandler),
    ]
