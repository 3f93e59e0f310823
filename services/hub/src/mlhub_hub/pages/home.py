"""The list of workspaces, and its live updates."""

import asyncio
from typing import Any

from jupyterhub.user import User
from tornado import web

from mlhub_hub.pages.base import PageHandler
from mlhub_hub.pages.stream import StreamHandler
from mlhub_hub.pages.view import Row
from mlhub_hub.pages.workspaces import rows_of
from mlhub_shared.contracts.workspace import Phase, queue_positions

_PENDING_LOOK = 1.0
"""Seconds between two looks at what JupyterHub is at."""


def rows_for(handler: PageHandler, user: User) -> list[Row]:
    """The rows of that user, with the buttons of the one who asks."""
    return rows_of(
        handler.context,
        user,
        handler.rights_over(user),
        hub_url=handler.hub.base_url,
        base_url=handler.settings["base_url"],
    )


class HomePage(PageHandler):
    """Is it up, can I get in, how long will it live, what does it use, and if not: why."""

    @web.authenticated
    async def get(self) -> None:
        """The workspaces of the user, or for admins of `?user=`."""
        owner = self.asked_user()
        await self.show(
            "home.html",
            owner=owner,
            rows=rows_for(self, owner),
            rights=self.rights_over(owner),
            new_url=self.page_url("new-workspace", user=owner.name),
            events_url=self.page_url("mlhub/events", user=owner.name),
        )


class HomeEvents(StreamHandler):
    """The rows that changed, as HTML."""

    @web.authenticated
    async def get(self) -> None:
        """Follow the workspaces of a user."""
        owner = self.asked_user()
        sent: dict[str, str] = {}

        async def look() -> dict[str, Any] | None:
            if self.find_user(owner.name) is not owner:
                return {"end": True}
            fresh = await self._rendered(owner)
            changed = {key: html for key, html in fresh.items() if sent.get(key) != html}
            same_keys = list(sent) == list(fresh)
            sent.clear()
            sent.update(fresh)
            return None if same_keys and not changed else {"order": list(fresh), "rows": changed}

        def relevant(keys: set[str]) -> bool:
            return not sent.keys().isdisjoint(keys) or self._concerns(keys, owner.name) or self._waits(sent)

        with self.context.workspaces.changes() as changes, self.context.nodes.changes() as nodes:
            watching = [
                asyncio.ensure_future(self.wake_on(changes, relevant)),
                asyncio.ensure_future(self.wake_on(nodes, lambda names: self._runs_on(sent, names))),
            ]
            try:
                await self.stream(look)
            finally:
                for task in watching:
                    task.cancel()

    async def _rendered(self, owner: User) -> dict[str, str]:
        rows = rows_for(self, owner)
        if any(row.server.pending for row in rows):
            # What JupyterHub is at ends without a change of a record.
            asyncio.get_running_loop().call_later(_PENDING_LOOK, self.wake)
        return {row.key: await self.render_template("_workspace.html", row=row) for row in rows}

    def _concerns(self, keys: set[str], name: str) -> bool:
        records = (self.context.workspaces.value(key) for key in keys)
        return any(record is not None and record.workspace.user == name for record in records)

    def _runs_on(self, keys: dict[str, str], nodes: set[str]) -> bool:
        records = (self.context.workspaces.value(key) for key in keys)
        return any(record is not None and record.node in nodes for record in records)

    def _waits(self, keys: dict[str, str]) -> bool:
        """One of these is in line, so that whatever happens to others may move it."""
        records = (self.context.workspaces.value(key) for key in keys)
        return any(record is not None and record.phase is Phase.QUEUED for record in records)


def position_of(handler: PageHandler, key: str) -> int | None:
    """Place in line of a workspace, from 1."""
    record = handler.context.workspaces.value(key)
    if record is None or record.phase is not Phase.QUEUED:
        return None
    return queue_positions(handler.context.workspaces.values()).get(key)
