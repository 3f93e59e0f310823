"""The SSH sessions that are open: whose they are, and how one is ended."""

from collections.abc import Callable
from datetime import timedelta

from tornado import web

from mlhub_hub.context import HubContext
from mlhub_shared.contracts.queries import END_SESSION, EndSession
from mlhub_shared.contracts.services import OpenSession
from mlhub_shared.errors import MLHubError, Permanent

SEES, ENDS = "read:servers", "delete:servers"
"""The scopes over a user that let somebody see his sessions, and end them."""

_ENDED_WITHIN = timedelta(seconds=5)

HasScope = Callable[[str], bool]


def user_in(session: OpenSession) -> str | None:
    """Who is in; None for a service."""
    kind, _, name = session.requester.partition(":")
    return name if kind == "user" else None


def people_of(session: OpenSession) -> set[str]:
    """Whose session it is: his who is in, and his who is visited."""
    return {session.workspace.user, user_in(session) or session.workspace.user}


def may(session: OpenSession, scope: str, has_scope: HasScope) -> bool:
    """Whether a request has this scope over one of those whose session it is."""
    return any(has_scope(f"{scope}!user={name}") for name in people_of(session))


def seen(context: HubContext, has_scope: HasScope) -> list[OpenSession]:
    """The sessions that a request may see, the newest first."""
    found = [session for session in context.sessions.values() if may(session, SEES, has_scope)]
    return sorted(found, key=lambda session: (session.opened_at, session.id), reverse=True)


async def end(context: HubContext, session_id: str, has_scope: HasScope, *, requester: str) -> None:
    """End one; 404 if there is none that this request may see, 403 if it may not end it, 503 if nobody answers."""
    session = context.sessions.value(session_id)
    if session is None or not may(session, SEES, has_scope):
        raise web.HTTPError(404, "There is no such session, or it has ended.")
    if not may(session, ENDS, has_scope):
        raise web.HTTPError(403, "You may see this session, but not end it.")
    query = EndSession(id=session.id, requester=requester, correlation_id=session.id)
    try:
        await context.bus.ask(END_SESSION, query, OpenSession, node=session.gateway, timeout=_ENDED_WITHIN)
    except Permanent:
        raise web.HTTPError(404, "There is no such session, or it has ended.") from None
    except MLHubError as error:
        raise web.HTTPError(503, f"Its gateway does not answer: {error}.") from None
