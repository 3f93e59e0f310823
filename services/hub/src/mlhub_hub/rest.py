"""JupyterHub's REST handlers of users and servers, where the bus makes more of a request than JupyterHub knows."""

import asyncio
from typing import Any

from jupyterhub.apihandlers.users import UserAPIHandler, UserServerAPIHandler
from jupyterhub.scopes import needs_scope
from jupyterhub.spawner import Spawner
from tornado import web

from mlhub_hub import modes, options
from mlhub_hub.accepted import AcceptedSpawns
from mlhub_hub.adoption import cancel_spawn
from mlhub_hub.alone import alone, until_removed
from mlhub_hub.context import SETTINGS_KEY, HubContext
from mlhub_hub.requester import note_requester, requester
from mlhub_hub.settings import Workspaces
from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.options import split_secrets
from mlhub_shared.errors import MLHubError, Temporary

Body = dict[str, Any]

_STOPPED_WITHIN = 40
"""Seconds that the servers of a user who is deleted may take to stop."""


class WorkspaceHandler(AcceptedSpawns, UserServerAPIHandler):
    """Checks options before they are kept, stores secret values, and knows the three ways."""

    @property
    def mlhub(self) -> HubContext:
        """The hub's context."""
        context: HubContext = self.settings[SETTINGS_KEY]
        return context

    def get_server_json_body(self) -> Body:
        """The body, with options that anybody may have, and whose secrets don't show in logs."""
        body: Body = super().get_server_json_body()
        if isinstance(body["user_options"], dict):
            options.check(body["user_options"], self.mlhub.policy)
            body["user_options"] = options.hidden(body["user_options"])
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
        # Whatever is refused later than here is no answer any more, only a line in the progress.
        if self.mlhub.settings.workspaces is Workspaces.HANDED_OUT:
            has_changed = self._changes_options(user_name, server_name)
            modes.check_start(self.mlhub, self, user_name, server_name, has_changed=has_changed)
        async with alone(self.mlhub, user_name, [server_name]):
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

    def _changes_options(self, user_name: str, server_name: str) -> bool:
        user, given = self.find_user(user_name), self.get_server_json_body()["user_options"]
        orm_spawner = user.orm_spawners.get(server_name) if user else None
        if orm_spawner is None or given is None:
            return False
        return bool(split_secrets(given)[0] != (orm_spawner.user_options or {}))

    async def _accept(self, user_name: str, server_name: str) -> None:
        user = self.find_user(user_name)
        orm_spawner = user.orm_spawners.get(server_name) if user else None
        if orm_spawner is not None:
            self.mlhub.unapplied.pop(orm_spawner, None)
        try:
            await self.mlhub.secret_values.keep(self.mlhub.workspace(user_name, server_name))
        except Temporary:
            raise web.HTTPError(503, "The secret values could not be stored. Set them again in a moment.") from None


class UserHandler(UserAPIHandler):
    """Deletes a user with all that runs, tells the other services, and refuses what would tear things apart."""

    @property
    def mlhub(self) -> HubContext:
        """The hub's context."""
        context: HubContext = self.settings[SETTINGS_KEY]
        return context

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
        is_renaming = isinstance(body, dict) and body.get("name", user_name) != user_name
        if is_renaming and any(record.workspace.user == user_name for record in self.mlhub.workspaces.values()):
            raise web.HTTPError(400, f"{user_name} has workspaces, which belong to that name: delete them first.")
        await super().patch(user_name)

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


def rest_handlers() -> list[tuple[Any, ...]]:
    """What stands in front of JupyterHub's own handlers, under the hub's prefix."""
    return [
        (r"/api/users/([^/]+)/servers/([^/]*)", WorkspaceHandler),
        (r"/api/users/([^/]+)/server", WorkspaceHandler),
        (r"/api/users/([^/]+)", UserHandler),
    ]
