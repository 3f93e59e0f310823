"""Who is in a workspace by SSH now: a page that follows it, with a way to end each session."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tornado import web

from mlhub_hub import sessions
from mlhub_hub.auth.keys import labels_of
from mlhub_hub.pages.base import PageHandler
from mlhub_hub.pages.stream import StreamHandler
from mlhub_hub.pages.words import amount
from mlhub_hub.requester import requester_of
from mlhub_shared.contracts.services import OpenSession

_MOST = 300
"""Rows of one page; it is drawn anew with every change."""


@dataclass(frozen=True)
class SessionRow:
    """One session on the page."""

    session: OpenSession
    who: str
    is_self: bool
    key: str | None
    """Its name, for those who may know it."""
    bytes_in: str
    bytes_out: str
    can_end: bool


class _Sessions(PageHandler):
    def everything(self) -> dict[str, Any]:
        """What the list shows."""
        seen = sessions.seen(self.context, self.has_scope)
        shown = seen[:_MOST]
        labels = labels_of(self.db, {session.fingerprint for session in shown if session.fingerprint})
        rows = [self._row(session, labels.get(session.fingerprint or "")) for session in shown]
        return {"rows": rows, "more": len(seen) - len(shown)}

    def _row(self, session: OpenSession, key: tuple[str, str] | None) -> SessionRow:
        user = sessions.user_in(session)
        knows_key = key is not None and self.has_scope(f"read:users!user={key[0]}")
        return SessionRow(
            session=session,
            who=user or f"service {session.requester.partition(':')[2]}",
            is_self=user == self.current_user.name,
            key=key[1] if key is not None and knows_key else None,
            bytes_in=amount(session.bytes_in),
            bytes_out=amount(session.bytes_out),
            can_end=sessions.may(session, sessions.ENDS, self.has_scope),
        )


class SessionsPage(_Sessions):
    """`/sessions`: an admin sees all, a user his own and those into his workspaces."""

    @web.authenticated
    async def get(self) -> None:
        """The list."""
        is_everybodys = bool(self.has_scope(sessions.SEES))
        stream_url = self.page_url("mlhub/sessions")
        await self.show("sessions.html", is_everybodys=is_everybodys, stream_url=stream_url, **self.everything())

    @web.authenticated
    async def post(self) -> None:
        """End one."""
        session_id = self.form_value("session")
        await sessions.end(self.context, session_id, self.has_scope, requester=requester_of(self))
        await self._until_gone(session_id)
        self.redirect(self.page_url("sessions"))

    async def _until_gone(self, session_id: str) -> None:
        """Wait, for a moment, until the list can show it."""
        for _ in range(20):
            if self.context.sessions.value(session_id) is None:
                return
            await asyncio.sleep(0.05)


class SessionsEvents(_Sessions, StreamHandler):
    """The list, as HTML, whenever it changes."""

    # Bytes change all the time, and everybody's sessions may be many.
    coalesce = timedelta(seconds=1)

    @web.authenticated
    async def get(self) -> None:
        """Follow the sessions."""
        sent = ""

        async def look() -> dict[str, Any] | None:
            nonlocal sent
            before, sent = sent, await self.render_template("_sessions.html", **self.everything())
            return None if before == sent else {"html": sent}

        with self.context.sessions.changes() as changes:
            watching = asyncio.ensure_future(self.wake_on(changes, bool))
            try:
                await self.stream(look)
            finally:
                watching.cancel()
