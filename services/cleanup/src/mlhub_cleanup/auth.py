"""Who may run clean-ups: the hub decides, by OAuth for browsers and by token for programs."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import structlog
from fastapi import HTTPException, Request
from fastapi.responses import RedirectResponse
from jupyterhub.httpclient import JupyterHubHTTPClient
from jupyterhub.services.auth import HubOAuth
from tornado.httputil import url_concat
from tornado.web import HTTPError

from mlhub_cleanup.settings import CleanupSettings

log = structlog.get_logger(__name__)

SERVICE = "cleanup-service"
"""The name the hub knows this service by."""

SCOPE = "custom:cleanup:run"
"""What a user, service or token must hold."""

_ACCESS = f"access:services!service={SERVICE}"
_CLIENT_ID = f"service-{SERVICE}"
_SESSION, _LOGIN = _CLIENT_ID, f"{_CLIENT_ID}-oauth-state"
_LOGIN_SECONDS = 600
_HUB_SECONDS = 10.0
_MOST_FORM_BYTES = 4096


class LoginNeeded(Exception):
    """A browser without a session: to be sent to the hub."""

    def __init__(self, response: RedirectResponse) -> None:
        super().__init__("login needed")
        self.response = response


@dataclass(frozen=True)
class Caller:
    """Somebody who may run clean-ups."""

    name: str
    """`user:NAME` or `service:NAME`."""
    form_token: str = ""
    """What a form of this browser's session has to carry; empty for programs."""


class Gate:
    """Lets in who holds the scope; remembers nobody, so that any replica can serve anybody."""

    def __init__(self, settings: CleanupSettings) -> None:
        self._prefix, self._public_url = settings.service_prefix, settings.public_url
        token = settings.hub_api_token
        self._key = token.get_secret_value().encode() if token else b""
        self._oauth: Any = None
        if token is not None:
            self._oauth = HubOAuth(
                api_url=settings.hub_api_url,
                api_token=token.get_secret_value(),
                base_url=settings.service_prefix,
                hub_prefix=settings.hub_prefix,
                oauth_client_id=_CLIENT_ID,
                oauth_redirect_uri=f"{settings.service_prefix}oauth_callback",
                access_scopes={_ACCESS},
                cache_max_age=30,
            )

    async def close(self) -> None:
        """Close the connections to the hub."""
        if self._oauth is not None:
            await JupyterHubHTTPClient.loop_instance().close()

    async def reader(self, request: Request) -> Caller:
        """Who looks; sends browsers to the login, refuses everybody else."""
        if (token := _bearer(request)) is not None:
            return await self._caller(token, fresh=False)
        navigates = _is_navigation(request)
        session = request.cookies.get(_SESSION) if navigates else None
        if session is not None:
            try:
                caller = await self._caller(session, fresh=False)
            except HTTPException as refusal:
                if refusal.status_code != 401:
                    raise
            else:
                return Caller(caller.name, self._form_token(session))
        if navigates and wants_html(request):
            raise LoginNeeded(self._to_login(request))
        raise HTTPException(401, "this needs a token of the hub, or its login")

    async def writer(self, request: Request) -> Caller:
        """Who changes something; a browser's session counts only with the token of the form it was given."""
        if (token := _bearer(request)) is not None:
            return await self._caller(token, fresh=True)
        session = request.cookies.get(_SESSION)
        if session is None:
            raise HTTPException(401, "this needs a token of the hub, or its login")
        given = request.headers.get("X-XSRFToken") or await _form_field(request, "_xsrf")
        if not self._is_own_page(request) or not _same(given, self._form_token(session)):
            raise HTTPException(403, "this did not come from a page of this service; open it again")
        caller = await self._caller(session, fresh=True)
        return Caller(caller.name, self._form_token(session))

    async def finish_login(self, request: Request) -> RedirectResponse:
        """Take a browser back from the hub's login."""
        state, verifier, target = _unpacked(request.cookies.get(_LOGIN, ""))
        code, given = request.query_params.get("code"), request.query_params.get("state", "")
        if self._oauth is None or not code or not state or not _same(given, state):
            raise HTTPException(403, "the login was not completed; open the page again")
        try:
            async with asyncio.timeout(_HUB_SECONDS):
                token = await self._oauth.token_for_code(code, code_verifier=verifier, sync=False)
        except (TimeoutError, HTTPError, KeyError) as error:
            log.warning("login.failed", error=type(error).__name__)
            raise HTTPException(403, "the hub did not complete the login; open the page again") from error
        response = RedirectResponse(target if target.startswith(self._prefix) else self._prefix, 303)
        response.delete_cookie(_LOGIN, path=self._prefix)
        self._set_cookie(response, request, _SESSION, token)
        return response

    async def _caller(self, token: str, *, fresh: bool) -> Caller:
        if self._oauth is None:
            raise HTTPException(503, "this service has no token for the hub")
        try:
            async with asyncio.timeout(_HUB_SECONDS):
                owner = await self._oauth.user_for_token(token, use_cache=not fresh, sync=False)
        except (TimeoutError, HTTPError) as error:
            raise HTTPException(503, "the hub does not answer") from error
        if owner is None:
            raise HTTPException(401, "the hub does not know this token")
        if not self._oauth.check_scopes({SCOPE}, owner):
            raise HTTPException(403, f"this needs the scope {SCOPE}")
        return Caller(f"{owner['kind']}:{owner['name']}")

    def _to_login(self, request: Request) -> RedirectResponse:
        verifier, challenge, method = self._oauth.generate_pkce_code_challenge()
        state = secrets.token_urlsafe(16)
        query = {"state": state, "code_challenge": challenge, "code_challenge_method": method}
        response = RedirectResponse(url_concat(self._oauth.login_url, query), 302)
        cookie = _packed(state, verifier, request.url.path)
        self._set_cookie(response, request, _LOGIN, cookie, max_age=_LOGIN_SECONDS)
        return response

    def _set_cookie(
        self, response: RedirectResponse, request: Request, name: str, value: str, max_age: int | None = None
    ) -> None:
        scheme = urlsplit(self._public_url).scheme if self._public_url else request.url.scheme
        response.set_cookie(
            name,
            value,
            max_age=max_age,
            path=self._prefix,
            secure=scheme == "https",
            httponly=True,
            samesite="lax",
        )

    def _form_token(self, session: str) -> str:
        return hmac.new(self._key, session.encode(), hashlib.sha256).hexdigest()

    def _is_own_page(self, request: Request) -> bool:
        if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            return False
        origin = request.headers.get("Origin")
        if origin is None:
            return True
        own = {request.headers.get("Host"), urlsplit(self._public_url).netloc if self._public_url else None}
        return urlsplit(origin).netloc in own - {None, ""}


def wants_html(request: Request) -> bool:
    """Whether a person looks at the answer."""
    return "text/html" in request.headers.get("Accept", "")


def _is_navigation(request: Request) -> bool:
    # Workspaces share the hub's host: a script of theirs must not read a page with its visitor's session.
    headers = request.headers
    mode, place = headers.get("Sec-Fetch-Mode", "navigate"), headers.get("Sec-Fetch-Dest", "document")
    return mode == "navigate" and place == "document"


def _bearer(request: Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() in ("token", "bearer") and token.strip() else None


async def _form_field(request: Request, name: str) -> str:
    if not request.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
        return ""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_FORM_BYTES:
            raise HTTPException(413, "the form is too large")
    return parse_qs(body.decode(errors="replace")).get(name, [""])[0]


def _same(given: str, expected: str) -> bool:
    return bool(expected) and secrets.compare_digest(given.encode(), expected.encode())


def _packed(state: str, verifier: str, target: str) -> str:
    return ".".join([state, verifier, base64.urlsafe_b64encode(target.encode()).decode().rstrip("=")])


def _unpacked(cookie: str) -> tuple[str, str, str]:
    parts = cookie.split(".")
    if len(parts) != 3:
        return "", "", ""
    try:
        target = base64.urlsafe_b64decode(parts[2] + "=" * (-len(parts[2]) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return "", "", ""
    return parts[0], parts[1], target
