"""What the buttons of a workspace do; all work without JavaScript."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

from jupyterhub.handlers import BaseHandler
from jupyterhub.user import User
from tornado import web

from mlhub_hub.modes import check_change
from mlhub_hub.pages.base import PageHandler
from mlhub_hub.pages.view import extended, links_of
from mlhub_hub.pages.workspaces import server_of
from mlhub_hub.rest import WorkspaceHandler
from mlhub_shared.contracts.message import new_id
from mlhub_shared.contracts.queries import EXTEND_WORKSPACE, ExtendWorkspace
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.errors import MLHubError

_EXTEND_PATIENCE = timedelta(seconds=5)
_STOPPED_WITHIN = 5.0
"""Seconds that a stop may still take where a start is asked for."""
_STOPPED_FOR_UPDATE = 40.0
"""Seconds that it may take where the start after it is the reason for it."""
_LOOK = 0.05
_STARTS = {"start", "update"}
"""What leads to the progress of a start."""


class WorkspaceAction(PageHandler, WorkspaceHandler):
    """Start, stop and delete as the REST API does, asked by a form, answered by a page."""

    SUPPORTED_METHODS = ("POST",)

    # A form is sent by a browser: the API's own rules for scripts don't fit, those of pages do.
    _accept_token_auth = False
    _xsrf_safe_methods = BaseHandler._xsrf_safe_methods
    get_content_type = BaseHandler.get_content_type
    get_current_user_cookie = BaseHandler.get_current_user_cookie
    check_xsrf_cookie = BaseHandler.check_xsrf_cookie

    @web.authenticated
    async def post(self, action: str) -> None:
        """Do it and go back to the list; to the progress of a start."""
        user = self.user_named(self.form_value("user"))
        server = self.form_value("server")
        if server not in {"", *user.orm_spawners}:
            raise web.HTTPError(404, "There is no such workspace.")
        await getattr(self, f"_{action.replace('-', '_')}")(user, server)
        if self.request.headers.get("Accept") == "application/json":
            self.set_status(204)
            self.finish()
            return
        links = links_of(server_of(user, server), hub_url=self.hub.base_url, base_url=self.settings["base_url"])
        pages = dict.fromkeys(_STARTS, links.progress) | {"start-on-ssh": links.ssh}
        self.redirect(pages.get(action, self.home_url(user)))

    def get_json_body(self) -> dict[str, Any] | None:
        """What the API would have been sent to stop or delete."""
        return {"remove": True} if self.path_args[0] == "delete" else None

    def get_server_json_body(self) -> dict[str, Any]:
        """What it would have been sent to start with the options as they are."""
        return {"display_name": None, "user_options": None, "is_update": self.path_args[0] == "update"}

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """A sentence for scripts, a page for people."""
        if self.request.headers.get("Accept") == "application/json":
            WorkspaceHandler.write_error(self, status_code, **kwargs)
        else:
            BaseHandler.write_error(self, status_code, **kwargs)

    async def _start(self, user: User, server: str) -> None:
        spawner = user.spawners[server]
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOPPED_WITHIN):
                while spawner.pending == "stop":  # noqa: ASYNC110  (JupyterHub tells nobody)
                    await asyncio.sleep(_LOOK)
        if not spawner.active:
            await WorkspaceHandler.post(self, user.name, server)

    async def _update(self, user: User, server: str) -> None:
        if not self.context.policy.images_allowed:
            raise web.HTTPError(400, "There are no images here that could be newer.")
        self.user_named(user.name, scope="start:servers")
        # What would be refused afterwards must not stop what runs.
        self.check_room(user.name, server)
        spawner = user.spawners[server]
        if spawner.active and spawner.pending != "stop":
            await self._stop(user, server)
        try:
            async with asyncio.timeout(_STOPPED_FOR_UPDATE):
                while spawner.active:  # noqa: ASYNC110  (JupyterHub tells nobody)
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            raise web.HTTPError(409, "It is still stopping. Try to update it again in a moment.") from None
        await WorkspaceHandler.post(self, user.name, server)

    async def _stop(self, user: User, server: str) -> None:
        await WorkspaceHandler.delete(self, user.name, server)

    async def _delete(self, user: User, server: str) -> None:
        await WorkspaceHandler.delete(self, user.name, server)

    async def _start_on_ssh(self, user: User, server: str) -> None:
        self.user_named(user.name, scope="start:servers")
        check_change(self.context, self, user.name)
        await self.set_start_on_ssh(user.name, server, self.form_value("wanted") != "no")

    async def _extend(self, user: User, server: str) -> None:
        self.user_named(user.name, scope="start:servers")
        record = self.context.workspaces.value(self.context.workspace(user.name, server).name)
        until = extended(record, self.context.policy, self.context.clock()) if record else None
        if record is None or until is None:
            raise web.HTTPError(409, "There is nothing to extend: it does not run, has no end, or lives its longest.")
        query = ExtendWorkspace(
            workspace=record.workspace,
            generation=record.generation,
            expires_at=until,
            requester=f"user:{self.current_user.name}",
            correlation_id=new_id(),
        )
        try:
            await self.context.bus.ask(
                EXTEND_WORKSPACE, query, WorkspaceRecord, node=record.node, timeout=_EXTEND_PATIENCE
            )
        except MLHubError as error:
            raise web.HTTPError(503, f"It could not be extended: {error}.") from None
