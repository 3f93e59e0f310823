"""Where a workspace sends the browsers that open it: whoever may not is told so, and the audit stream too."""

import asyncio

from jupyterhub import orm
from jupyterhub.apihandlers.auth import OAuthAuthorizeHandler
from tornado import web

from mlhub_hub.auth.announce import announce_event
from mlhub_hub.context import SETTINGS_KEY
from mlhub_shared.contracts.events import Event, EventKind

_TOLD_KEY = "mlhub_denials"
_SAME = 60.0
"""Seconds in which the same person at the same workspace is told of once: an open page tries again and again."""
_MOST = 10_000


class AuthorizeHandler(OAuthAuthorizeHandler):
    """JupyterHub's, which refuses without a trace but a line in the log."""

    async def get(self) -> None:
        """Lead back to the workspace, or refuse."""
        try:
            if (answer := super().get()) is not None:
                await answer
        except web.HTTPError as error:
            if error.status_code == 403:
                self._tell()
            raise

    def _tell(self) -> None:
        client = orm.OAuthClient
        asked = self.db.query(client).filter_by(identifier=self.get_argument("client_id", "")).one_or_none()
        if asked is None or asked.spawner is None or self.current_user is None:
            return
        workspace = self.settings[SETTINGS_KEY].workspace(asked.spawner.user.name, asked.spawner.name)
        requester = f"user:{self.current_user.name}"
        told: dict[tuple[str, str], float] = self.settings.setdefault(_TOLD_KEY, {})
        now, key = asyncio.get_running_loop().time(), (requester, workspace.name)
        if now - told.get(key, -_SAME) < _SAME:
            return
        if len(told) >= _MOST:
            told.clear()
        told[key] = now
        event = Event(
            kind=EventKind.ACCESS_DENIED,
            workspace=workspace,
            requester=requester,
            message="No access to this workspace",
            detail={"client": str(self.request.remote_ip), "through": "web"},
        )
        announce_event(self.settings, event)


def authorize_handlers() -> list[tuple[str, type[AuthorizeHandler]]]:
    """Pattern and handler, as `JupyterHub.add_url_prefix` takes them."""
    return [(r"/api/oauth2/authorize", AuthorizeHandler)]
