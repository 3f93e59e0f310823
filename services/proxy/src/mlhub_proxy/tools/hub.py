"""The hub, as its OAuth client sees it."""

import asyncio
from http import HTTPStatus
from typing import Any, NamedTuple

import httpx
from pydantic import BaseModel, Field, SecretStr, ValidationError

from mlhub_proxy.tools.lanes import Lane
from mlhub_shared.errors import Permanent, Temporary

CLIENT_ID = "service-proxy"

_PATIENCE = 3.0
"""Seconds from the wish to ask to the answer."""
_AT_ONCE, _WAITING = 4, 200
"""Questions of one kind: a flood of them must leave the hub to the others, and this process too."""
_KINDS = 3
_MOST_MET = 10_000
_UNKNOWN = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})
_LONGEST_TOKEN = 512


class Visitor(BaseModel):
    """Whom a token belongs to, and what it may do now."""

    name: str
    kind: str = "user"
    scopes: list[str] = Field(default_factory=list)

    @property
    def requester(self) -> str:
        """As events name it."""
        return f"{self.kind}:{self.name}"


class Credential(NamedTuple):
    """A token, and how it came."""

    token: str
    is_sealed: bool = False
    """We have handed it out after a login."""


class Hub:
    """Asks; Temporary when there is no answer."""

    def __init__(self, api_url: str, secret: SecretStr, redirect_uri: str) -> None:
        self._secret, self._redirect_uri = secret, redirect_uri
        self._client = httpx.AsyncClient(
            base_url=api_url.rstrip("/") + "/",
            timeout=_PATIENCE,
            trust_env=False,
            limits=httpx.Limits(max_connections=_AT_ONCE * _KINDS),
        )
        self._known, self._strange, self._logins = (Lane(_AT_ONCE, _WAITING) for _ in range(_KINDS))
        self._met: set[Credential] = set()
        """Whom the hub knew when it was asked last."""

    async def close(self) -> None:
        """End all connections."""
        await self._client.aclose()

    async def whose(self, credential: Credential) -> Visitor | None:
        """None: the hub does not know this token, or not any more."""
        token, is_sealed = credential
        if not token.isascii() or not token.isprintable() or len(token) > _LONGEST_TOKEN:
            return None
        lane = self._known if is_sealed or credential in self._met else self._strange
        answer = await self._send(lane, "GET", "user", headers={"Authorization": f"token {token}"})
        if answer.status_code in _UNKNOWN:
            self._met.discard(credential)
            return None
        try:
            visitor = Visitor.model_validate_json(answer.content)
        except ValidationError as error:
            raise Temporary("the hub's answer can't be read") from error
        if len(self._met) >= _MOST_MET:
            self._met.clear()
        self._met.add(credential)
        return visitor

    async def token_for(self, code: str, verifier: str) -> str:
        """The token at the end of a login; Permanent if the hub refuses the code."""
        form = {
            "client_id": CLIENT_ID,
            "client_secret": self._secret.get_secret_value(),
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": verifier,
        }
        answer = await self._send(self._logins, "POST", "oauth2/token", data=form)
        if answer.status_code != HTTPStatus.OK:
            raise Permanent("the hub did not complete the login")
        return str(answer.json()["access_token"])

    async def _send(self, lane: Lane, method: str, path: str, **fields: Any) -> httpx.Response:
        try:
            # Not httpx's own queue: each of its events costs as much as there are waiting.
            async with asyncio.timeout(_PATIENCE), lane.turn():
                answer = await self._client.request(method, path, **fields)
        except (httpx.HTTPError, TimeoutError) as error:
            raise Temporary("the hub does not answer") from error
        if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            raise Temporary("the hub can't answer now")
        return answer
