"""JupyterHub's REST handlers of users and servers, where the bus makes more of a request than JupyterHub knows."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jupyterhub.apihandlers.users import UserAPIHandler, UserServerAPIHandler
from jupyterhub.scopes import needs_scope
from jupyterhub.spawner import Spawner
from jupyterhub.user import User
from tornado import web

from mlhub_hub import modes, options
from mlhub_hub.accepted import AcceptedSpawns
from mlhub_hub.adoption import cancel_spawn
from mlhub_hub.alone import alone, until_removed
from mlhub_hub.models import ProgressHandler, SelfHandler, UserListHandler, WorkspaceModels
from mlhub_hub.nodes_api import node_handlers
from mlhub_hub.requester import note_requester, requester
from mlhub_hub.settings import Workspaces
from mlhub_hub.spawner import kept_options
from mlhub_hub.totals import others_up
from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.errors import MLHubError

Body = dict[str, Any]

_STOPPED_WITHIN = 40
"""Seconds that the servers of a user who is deleted may take to stop."""


_NOT_OPTIONS = {"display_name", "user_options"}


class WorkspaceHandler(WorkspaceModels, AcceptedSpawns, UserServerAPIHandler):
    """Checks options before they are kept, stores secret values, and knows the three ways."""

    def get_server_json_body(self) -> Body:
        """The body, with options that anybody may have, and whose secrets don't show in logs.

        Nothing but `update` leaves the options as they are.
        """
        body: Body = super().get_server_json_body()
        if body["user_options"] is None and (plain := {key: body[key] for key in body.keys() - _NOT_OPTIONS}):
            # JupyterHub would take a display name for the sign that these mean nothing.
            body["user_options"] = plain
        given = body["user_options"]
        if isinstance(given, dict):
            options.check(given, self.mlhub.policy)
            body["user_options"] = None if given.keys() == {"update"} else options.hidden(given)
            body["is_update"] = options.is_update(given)
        return body

    def get_json_body(self) -> Any:
        """The body; JupyterHub logs the options of a PATCH as they stand in it."""
        body = super().get_json_body()
        if self.request.method == "PATCH" and isinstance(body, dict) and isinstance(body.get("user_options"), dict):
            options.check(body["user_options"], self.mlhub.policy)
            return body | {"user_options": options.hidden(body["user_options"])}
        return body

    @needs_scope("start:servers")
    async def put(self, user_name: str, server_name: str = "") -> None:
        """Create a named workspace without starting it."""
        async with alone(self.mlhub, user_name, [server_name]):
            await super().put(user_name, server_name)
        await self._accept(user_name, server_name)

    @needs_scope("start:servers")
    async def post(self, user_name: str, server_name: str = "") -> None:
        """Start a workspace."""
        body = self.get_server_json_body()
        # Whatever is refused later than here is no answer any more, only a line in the progress.
        if self.mlhub.settings.workspaces is Workspaces.HANDED_OUT:
            has_changed = self._changes_options(user_name, server_name, body["user_options"])
            modes.check_start(self.mlhub, self, user_name, server_name, has_changed=has_changed)
        self.check_room(user_name, server_name, body["user_options"])
        async with alone(self.mlhub, user_name, [server_name]):
            with self.updating(user_name, server_name, is_asked=body.get("is_update", False)):
                await super().post(user_name, server_name)
            if not self.find_user(user_name).spawners[server_name].ready:
                # Also for one that has failed already: only its progress says why.
                self.set_status(202)

    @needs_scope("start:servers")
    async def patch(self, user_name: str, server_name: str = "") -> None:
        """Change a stopped workspace."""
        modes.check_change(self.mlhub, self, user_name)
        body = super().get_json_body()
        new_name = body.get("name") if isinstance(body, dict) else None
        if new_name is not None:
            modes.check_rename(self.mlhub, self, user_name)
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
            await super().delete(user_name, server_name)
            await until_removed(self.find_user(user_name), server_name)

    def check_room(self, user_name: str, server_name: str, given: Body | None = None) -> None:
        """Refuse a start with options that this user can't have beside what he has: 400."""
        user = self.find_user(user_name)
        orm_spawner = user.orm_spawners.get(server_name) if user else None
        wanted = given if given is not None else (orm_spawner.user_options if orm_spawner else None) or {}
        others = others_up(self.mlhub, self.mlhub.workspace(user_name, server_name))
        options.check(wanted, self.mlhub.policy_now(), others)

    @contextmanager
    def updating(self, user_name: str, server_name: str, *, is_asked: bool) -> Iterator[None]:
        """The start that is asked for meanwhile fetches the image anew."""
        user, name = self.find_user(user_name), self.mlhub.workspace(user_name, server_name).name
        is_up = user is not None and server_name in user.spawners and user.spawners[server_name].active
        if is_asked and not is_up:
            self.mlhub.updates.add(name)
        try:
            yield
        except BaseException:
            if not is_up:
                self.mlhub.updates.discard(name)
            raise

    def _changes_options(self, user_name: str, server_name: str, given: Body | None) -> bool:
        user = self.find_user(user_name)
        orm_spawner = user.orm_spawners.get(server_name) if user else None
        if orm_spawner is None or given is None:
            return False
        title = given.get("display_name") or orm_spawner.display_name
        before = (orm_spawner.user_options or {}, orm_spawner.display_name)
        return bool((kept_options(given), title) != before)

    async def _accept(self, user_name: str, server_name: str) -> None:
        user = self.find_user(user_name)
        orm_spawner = user.orm_spawners.get(server_name) if user else None
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
                await asyncio.gather(*(self._stop(spawner) for spawner in active))
            await super().delete(user_name)
        self.mlhub.bus.run(self._tell_deleted(user_name, requester()))

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

    async def _check_rename(self, user: User) -> None:
        """Containers, volumes, secrets and orders carry the user's name: nothing of them may be left behind."""
        names = {
            *(name for name, orm_spawner in user.orm_spawners.items() if _is_workspace(orm_spawner)),
            *(known.workspace.server for known in self.mlhub.workspaces.values() if known.workspace.user == user.name),
        }
        if names == {""}:
            message = f"{user.name} has files in the default workspace, which belong to that name: it has to stay."
            raise web.HTTPError(400, message)
        if names:
            message = f"{user.name} has workspaces, whose files belong to that name: delete them first."
            raise web.HTTPError(400, message)
        unknown = web.HTTPError(
            503, f"Nobody can say just now whether {user.name} has workspaces. Try again in a moment."
        )
        if not self.mlhub.workspaces.is_live:
            raise unknown
        try:
            command = await self.mlhub.commands.last(self.mlhub.workspace(user.name, ""))
        except MLHubError:
            raise unknown from None
        if command is not None:
            raise web.HTTPError(409, f"A workspace of {user.name} is on its way. Try again in a moment.")

    async def _stop(self, spawner: Spawner) -> None:
        try:
            async with asyncio.timeout(_STOPPED_WITHIN):
                await cancel_spawn(spawner)
                if not spawner.pending:
                    await (await self.stop_single_user(spawner.user, spawner.name))
                while spawner.active:  # noqa: ASYNC110  (JupyterHub tells nobody)
                    await asyncio.sleep(0.1)
        except TimeoutError:
            message = f"The workspace {spawner.user.name}/{spawner.name} is still stopping. Try again in a moment."
            raise web.HTTPError(400, message) from None

    async def _tell_deleted(self, user_name: str, by: str) -> None:
        event = Event(kind=EventKind.USER_DELETED, user=user_name, requester=by)
        backoff = Backoff(first=0.2, most=10)
        while True:
            try:
                await self.mlhub.bus.emit(event)
            except MLHubError:
                await backoff.sleep()
            else:
                return


def _is_workspace(orm_spawner: Any) -> bool:
    """Whether there is more to it than the entry that JupyterHub makes for everybody."""
    return bool(orm_spawner.name) or orm_spawner.started is not None or orm_spawner.user_options is not None


def rest_handlers() -> list[tuple[Any, ...]]:
    """What stands in front of JupyterHub's own handlers, under the hub's prefix."""
    return [
        *node_handlers(),
        (r"/api/user", SelfHandler),
        (r"/api/users", UserListHandler),
        (r"/api/users/([^/]+)/servers/([^/]*)/progress", ProgressHandler),
        (r"/api/users/([^/]+)/server/progress", ProgressHandler),
        (r"/api/users/([^/]+)/servers/([^/]*)", WorkspaceHandler),
        (r"/api/users/([^/]+)/server", WorkspaceHandler),
        (r"/api/users/([^/]+)", UserHandler),
    ]
