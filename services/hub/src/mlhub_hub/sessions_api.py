"""The open SSH sessions in the REST API: `/hub/api/ssh-sessions`."""

import json
from typing import Any

from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.scopes import needs_scope

from mlhub_hub import sessions
from mlhub_hub.context import SETTINGS_KEY, HubContext
from mlhub_hub.requester import requester_of
from mlhub_shared.contracts.services import OpenSession

Model = dict[str, Any]


class _SessionHandler(APIHandler):
    @property
    def mlhub(self) -> HubContext:
        """The hub's context."""
        context: HubContext = self.settings[SETTINGS_KEY]
        return context


class SessionsHandler(_SessionHandler):
    """All that the one who asks may see: an admin every one, a user those by him and into his workspaces."""

    @needs_scope(sessions.SEES, post_filter=True)
    def get(self) -> None:
        """The sessions, the newest first."""
        self.finish(json.dumps([session_model(session) for session in sessions.seen(self.mlhub, self.has_scope)]))


class SessionHandler(_SessionHandler):
    """One of them."""

    @needs_scope(sessions.ENDS, post_filter=True)
    async def delete(self, session_id: str) -> None:
        """End it."""
        await sessions.end(self.mlhub, session_id, self.has_scope, requester=requester_of(self))
        self.set_status(204)


def session_model(session: OpenSession) -> Model:
    """A session as JSON."""
    model: Model = session.model_dump(mode="json", exclude={"workspace"})
    return model | {"user": session.workspace.user, "server": session.workspace.server}


def session_handlers() -> list[tuple[Any, ...]]:
    """Patterns and handlers, under the hub's prefix."""
    return [(r"/api/ssh-sessions", SessionsHandler), (r"/api/ssh-sessions/([^/]+)", SessionHandler)]
