"""Takes browsers to the hub's login and back, to a session that counts for one workspace.

A path goes there and back: tool > `login` > the hub > `oauth_callback` > tool. A site of its own knows nothing of what
the browser holds for the hub's host, so that both ends are bound to the browser by a cookie: site > its `login` > that
of the hub's host > the hub > `oauth_callback` > the site's `enter`. The hub's code is what is carried over: good once,
and for nobody but us.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Callable
from urllib.parse import urlencode, urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from mlhub_proxy.settings import ProxySettings
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
_SLASHES = "/\\"
"""Browsers take both for one."""
_BROWSER_VALUE = re.compile(r"[A-Za-z0-9_-]{43}")


class Login:
    """The OAuth client."""

    def __init__(
        self,
        hub: Hub,
        seals: Seals,
        pages: Pages,
        record_of: Callable[[str], WorkspaceRecord | None],
        settings: ProxySettings,
    ) -> None:
        self._hub, self._seals, self._pages, self._record_of = hub, seals, pages, record_of
        self._base, self._prefix = settings.base_url, settings.base_url + PREFIX
        self._domain, self._public_url = settings.tools_domain, settings.public_url.rstrip("/")

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        app.add_api_route(f"{self._prefix}login", self.begin, methods=["GET"], response_model=None)
        app.add_api_route(f"{self._prefix}oauth_callback", self.finish, methods=["GET"], response_model=None)
        app.add_api_route(f"{self._prefix}enter", self.enter, methods=["GET"], response_model=None)

    async def begin(self, request: Request, to: str = "") -> Response:
        """On to the hub, which knows who somebody is."""
        ticket = self._seals.ticket_of(to)
        record = self._record_of(ticket.name) if ticket else None
        if ticket is None or record is None:
            return self._failed()
        browser = _browser(request)
        if not _BROWSER_VALUE.fullmatch(browser):
            browser = secrets.token_urlsafe(32)
        if _site(request):
            ticket = ticket.model_copy(update={"at_site": _hash(browser)})
            way = f"{self._public_url}{self._prefix}login?to={self._seals.ticket(ticket)}"
        else:
            ticket = ticket.model_copy(update={"browser": _hash(browser)})
            way = f"{self._base}hub/api/oauth2/authorize?{urlencode(self._query(ticket, record.workspace))}"
        response = RedirectResponse(way, 302)
        # One for all windows that are on their way.
        path = "/" if _site(request) else self._prefix
        _set_cookie(response, request, _BROWSER, browser, path=path, max_age=_BROWSER_SECONDS)
        return response

    async def finish(self, request: Request, code: str = "", state: str = "") -> Response:
        """Back from the hub, with a code that is worth a token."""
        ticket, browser = self._seals.ticket_of(state), _browser(request)
        if ticket is None or not code or not _is(browser, ticket.browser) or _site(request):
            return self._failed()
        if not ticket.site:
            return await self._let_in(request, ticket, code)
        back = {"code": code, "state": self._seals.ticket(ticket.model_copy(update={"is_back": True}))}
        return RedirectResponse(f"{self._origin(ticket.site)}{self._prefix}enter?{urlencode(back)}", 302)

    async def enter(self, request: Request, code: str = "", state: str = "") -> Response:
        """Back at the site."""
        ticket, browser = self._seals.ticket_of(state), _browser(request)
        is_here = ticket is not None and ticket.is_back and ticket.site != "" and ticket.site == _site(request)
        if ticket is None or not is_here or not code or not _is(browser, ticket.at_site):
            return self._failed()
        return await self._let_in(request, ticket, code)

    async def _let_in(self, request: Request, ticket: Ticket, code: str) -> Response:
        record = self._record_of(ticket.name)
        if record is None:
            return self._failed()
        try:
            token = await self._hub.token_for(code, self._seals.verifier(ticket.browser))
        except Permanent:
            return self._failed()
        except Temporary as error:
            refusal = Refusal(503, "The hub does not answer", str(error), reloads=True)
            return self._pages.answer(refusal, wants_html=True)
        # Two slashes would begin another host's name.
        target = f"/{ticket.below.lstrip(_SLASHES)}" if ticket.site else record.base_url + ticket.below
        response = RedirectResponse(target, 303)
        path = "/" if ticket.site else f"{record.base_url}tools/"
        _set_cookie(response, request, SESSION, self._seals.session(token, record.name), path=path)
        return response

    def _query(self, ticket: Ticket, workspace: WorkspaceId) -> dict[str, str]:
        challenge = hashlib.sha256(self._seals.verifier(ticket.browser).encode()).digest()
        return {
            "client_id": CLIENT_ID,
            "redirect_uri": f"{self._prefix}oauth_callback",
            "response_type": "code",
            "scope": _scope(workspace),
            "state": self._seals.ticket(ticket),
            "code_challenge": base64.urlsafe_b64encode(challenge).decode().rstrip("="),
            "code_challenge_method": "S256",
        }

    def _origin(self, site: str) -> str:
        public = urlsplit(self._public_url)
        port = f":{public.port}" if public.port else ""
        return f"{public.scheme}://{site}.{self._domain}{port}"

    def _failed(self) -> Response:
        refusal = Refusal(403, "The login was not completed", "Open the tool again from your list of workspaces.")
        return self._pages.answer(refusal, wants_html=True)


def _site(request: Request) -> str:
    """First label of the tool's own host; empty on the hub's. From HAProxy, which lets nobody else say it."""
    return request.headers.get("X-Tools-Site", "")


def _scope(workspace: WorkspaceId) -> str:
    """The least that opens this workspace; all that its user may enter where a name can't be in a list of scopes."""
    scope = scope_of(workspace)
    return "access:servers" if scope is None or not re.fullmatch(r"[\x21-\x7e]+", scope) else scope


def _hash(browser: str) -> str:
    return hashlib.sha256(browser.encode()).hexdigest()


def _is(browser: str, expected: str) -> bool:
    return secrets.compare_digest(expected.encode(), _hash(browser).encode())


def _is_https(request: Request) -> bool:
    return request.headers.get("X-Forwarded-Proto") == "https"


def _name(request: Request, name: str) -> str:
    """The cookie's here: over HTTPS one that no other host of the domain can set, where its path lets it."""
    if not _is_https(request):
        return name
    return f"{'__Host-' if _site(request) else '__Secure-'}{name}"


def _browser(request: Request) -> str:
    """What the browser keeps meanwhile; empty if it has two, of which somebody else has set one."""
    name = _name(request, _BROWSER)
    pairs = [pair.strip().partition("=") for pair in request.headers.get("Cookie", "").split(";")]
    values = [value for key, _, value in pairs if key == name]
    return values[0] if len(values) == 1 else ""


def _set_cookie(
    response: Response, request: Request, name: str, value: str, *, path: str, max_age: int | None = None
) -> None:
    response.set_cookie(
        _name(request, name),
        value,
        max_age=max_age,
        path=path,
        secure=_is_https(request),
        httponly=True,
        samesite="lax",
    )
    response.headers["Cache-Control"] = "no-store"
