"""The page of a workspace on its way up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Any

from jupyterhub.handlers.pages import SpawnPendingHandler
from jupyterhub.user import User
from tornado import web

from mlhub_hub.pages.base import PageHandler
from mlhub_hub.pages.home import position_of, rows_for
from mlhub_hub.pages.steps import as_told, events_of_start, steps_of
from mlhub_hub.pages.stream import StreamHandler
from mlhub_hub.pages.view import Row, status_of
from mlhub_shared.contracts.events import Event
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import Phase

_BEFORE = timedelta(hours=12)
"""How far back the start may lie that is shown: some wait long in line."""


class _Start(PageHandler):
    """What both the page and its stream show."""

    def facts(self, user: User, server: str, events: list[Event]) -> dict[str, Any]:
        """Row, steps and events of the latest start."""
        row = self.row(user, server)
        record = self.context.workspaces.value(row.key)
        shown = record if row.status.word != "Requested" else None
        start = events_of_start(events, shown.generation if shown else None)
        position = position_of(self, row.key)
        if shown is not None:
            shown = as_told(shown, start)
            is_unreachable = self.context.nodes.is_unreachable(shown)
            status = status_of(shown, row.server, position=position, is_unreachable=is_unreachable)
            row = replace(row, status=status)
        return {
            "row": row,
            "steps": steps_of(start, shown, position=position, now=self.context.clock()),
            "events": start,
            "is_over": not user.spawners[server].pending and (shown is None or not shown.phase.is_active),
            "owner": user,
            "home_url": self.home_url(user),
        }

    def row(self, user: User, server: str) -> Row:
        """As on the home page."""
        key = self.context.workspace(user.name, server).name
        for row in rows_for(self, user):
            if row.key == key:
                return row
        raise web.HTTPError(404, "There is no such workspace.")


class StartingPage(_Start, SpawnPendingHandler):
    """`/spawn-pending/USER[/SERVER]`, as JupyterHub decides what it is about."""

    @web.authenticated
    async def get(self, user_name: str, server_name: str = "") -> None:
        """Progress, failure, or a redirect to what is ready."""
        user = self.user_named(user_name)
        if server_name not in user.orm_spawners:
            raise web.HTTPError(404, "There is no such workspace.")
        self._about = (user, server_name)
        page: Any = SpawnPendingHandler.get(self, user_name, server_name)
        await page

    def render_template(self, name: str, sync: bool = False, **values: Any) -> Any:
        """Adds what our templates show beside JupyterHub's."""
        if hasattr(self, "_about") and name in {"spawn_pending.html", "not_running.html", "stop_pending.html"}:
            user, server = self._about
            stream = self.page_url("mlhub/progress", user=user.name, server=server)
            values |= {**self.facts(user, server, []), "stream_url": stream}
            # JupyterHub says `user` for whose server it is, and the frame of the page for who looks at it.
            values["user"] = self.current_user
        return super().render_template(name, sync, **values)


class StartingEvents(_Start, StreamHandler):
    """The steps, as HTML, whenever they change; `end` when it is ready or over."""

    @web.authenticated
    async def get(self) -> None:
        """Follow one start."""
        user, server = self.asked_user(), self.get_argument("server", "")
        if server not in user.orm_spawners:
            raise web.HTTPError(404, "There is no such workspace.")
        workspace = self.context.workspace(user.name, server)
        events: list[Event] = []

        async def look() -> dict[str, Any] | None:
            if self.find_user(user.name) is not user or server not in user.orm_spawners:
                return {"end": True}
            if user.spawners[server].ready:
                return {"end": True, "ready": True}
            self._look_again_soon(workspace)
            facts = self.facts(user, server, events)
            html = await self.render_template("_steps.html", **facts)
            return {"html": html, "end": facts["is_over"], "over": facts["is_over"]}

        with self.context.workspaces.changes() as changes, self.context.nodes.changes() as nodes:
            tasks = [
                asyncio.ensure_future(self.wake_on(changes, lambda keys: self._moves(workspace, keys))),
                asyncio.ensure_future(self.wake_on(nodes, bool)),
                asyncio.ensure_future(self._collect(workspace, events)),
            ]
            try:
                await self.stream(look)
            finally:
                for task in tasks:
                    task.cancel()

    def _moves(self, workspace: WorkspaceId, keys: set[str]) -> bool:
        record = self.context.workspaces.value(workspace.name)
        return workspace.name in keys or (record is not None and record.phase is Phase.QUEUED)

    def _look_again_soon(self, workspace: WorkspaceId) -> None:
        """Settled for the worker is not settled for JupyterHub yet, which tells nobody when it is."""
        record = self.context.workspaces.value(workspace.name)
        if record is None or record.phase.is_settled:
            asyncio.get_running_loop().call_later(0.2, self.wake)

    async def _collect(self, workspace: WorkspaceId, events: list[Event]) -> None:
        since = self.context.clock() - _BEFORE
        async with aclosing(self.context.bus.replay(workspace.name, since=since)) as replay:
            async for event in _each(replay):
                events.append(event)
                self.wake()


async def _each(replay: AsyncIterator[Event]) -> AsyncIterator[Event]:
    async for event in replay:
        yield event
