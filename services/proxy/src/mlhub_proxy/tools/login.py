"""Takes browsers to the hub's login and back, to a session that counts for one workspace."""

import base64
import hashlib
import re
import secrets
from collections.abc import Callable
from urllib.parse import urlencode

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from mlhub_proxy.tools.hub import CLIENT_ID, Hub
from mlhub_proxy.tools.pages import Pages, Refusal
from mlhub_proxy.tools.seals import Seals, Ticket
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.scopes import scope_of
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.errors import Permanent, Temporary

PREFIX = "hub-tools/"
"""Below the hub's own prefix; no workspace and no page of the hub begins like this."""

SESSION = "mlhub-tools"
_BROWSER = f"{SESSION}-login"
_BROWSER_SECONDS = 600
_BROWSER_VALUE = re.compile(r"[A-Za-z0-9_-]{43}")


class Login:
    """The OAuth client."""

    def __init__(
        self, hub: Hub, seals: Seals, pages: Pages, record_of: Callable[[str], WorkspaceRecord | None], *, base: str
    ) -> None:
        self._hub, self._seals, self._pages, self._record_of = hub, seals, pages, record_of
        self._base, self._prefix = base, base + PREFIX

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        app.add_api_route(f"{self._prefix}login", self.begin, methods=["GET"], response_model=None)
        app.add_api_route(f"{self._prefix}oauth_callback", self.finish, methods=["GET"], response_model=None)

    async def begin(self, request: Request, to: str = "") -> Response:
        """On to the hub, which knows who somebody is."""
        ticket = self._seals.ticket_of(to)
        record = self._record_of(ticket.name) if ticket else None
        if ticket is None or record is None:
            return self._failed()
        browser = request.cookies.get(_BROWSER, "")
        if not _BROWSER_VALUE.fullmatch(browser):
            browser = secrets.token_urlsafe(32)
        challenge = hashlib.sha256(self._seals.verifier(browser).encode()).digest()
        query = {
            "client_id": CLIENT_ID,
            "redirect_uri": f"{self._prefix}oauth_callback",
            "response_type": "code",
            "scope": _scope(record.workspace),
            "state": self._seals.ticket(ticket.model_copy(update={"browser": _hash(browser)})),
            "code_challenge": base64.urlsafe_b64encode(challenge).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        response = RedirectResponse(f"{self._base}hub/api/oauth2/authorize?{urlencode(query)}", 302)
        # One for all windows that are on their way.
        _set_cookie(response, request, _BROWSER, browser, path=self._prefix, max_age=_BROWSER_SECONDS)
        return response

    async def finish(self, request: Request, code: str = "", state: str = "") -> Response:
        """Back from the hub, with a code that is worth a token."""
        ticket, browser = self._seals.ticket_of(state), request.cookies.get(_BROWSER, "")
        record = self._record_of(ticket.name) if ticket else None
        if ticket is None or record is None or not code or not _is_hash_of(ticket, browser):
            return self._failed()
        try:
            token = await self._hub.token_for(code, self._seals.verifier(browser))
        except Permanent:
            return self._failed()
        except Temporary as error:
            return self._pages.answer(
                Refusal(503, "The hub does not answer", str(error), reloads=True), wants_html=True
            )
        response = RedirectResponse(record.base_url + ticket.below, 303)
        session = self._seals.session(token, record.name)
        _set_cookie(response, request, SESSION, session, path=f"{record.base_url}tools/")
        return response

    def _failed(self) -> Response:
        refusal = Refusal(403, "The login was not completed", "Open the tool again from your list of workspaces.")
        return self._pages.answer(refusal, wants_html=True)


def _scope(workspace: WorkspaceId) -> str:
    """The least that opens this workspace; all that its user may enter where a name can't be in a list of scopes."""
    scope = scope_of(workspace)
    return "access:servers" if scope is None or not re.fullmatch(r"[\x21-\x7e]+", scope) else scope


def _hash(browser: str) -> str:
    return hashlib.sha256(browser.encode()).hexdigest()


def _is_hash_of(ticket: Ticket, browser: str) -> bool:
    return secrets.compare_digest(ticket.browser, _hash(browser))


def _set_cookie(
    response: Response, request: Request, name: str, value: str, *, path: str, max_age: int | None = None
) -> None:
    response.set_cookie(
        name,
        value,
        max_age=max_age,
        path=path,
        secure=request.headers.get("X-Forwarded-Proto") == "https",
        httponly=True,
        samesite="lax",
    )
    response.headers["Cache-Control"] = "no-store"
