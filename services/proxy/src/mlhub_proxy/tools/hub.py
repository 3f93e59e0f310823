"""The hub, as its OAuth client sees it."""

from http import HTTPStatus
from typing import Any

import httpx
from pydantic import BaseModel, Field, SecretStr, ValidationError

from mlhub_shared.errors import Permanent, Temporary

CLIENT_ID = "service-proxy"

_PATIENCE = 3.0
_AT_ONCE = 8
"""Questions in flight: a flood of unknown tokens must leave the hub to the others."""
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


class Hub:
    """Asks; Temporary when there is no answer."""

    def __init__(self, api_url: str, secret: SecretStr, redirect_uri: str) -> None:
        self._secret, self._redirect_uri = secret, redirect_uri
        self._client = httpx.AsyncClient(
            base_url=api_url.rstrip("/") + "/",
            timeout=_PATIENCE,
            trust_env=False,
            limits=httpx.Limits(max_connections=_AT_ONCE),
        )

    async def close(self) -> None:
        """End all connections."""
        await self._client.aclose()

    async def whose(self, token: str) -> Visitor | None:
        """None: the hub does not know this token, or not any more."""
        if not token.isascii() or not token.isprintable() or len(token) > _LONGEST_TOKEN:
            return None
        answer = await self._send("GET", "user", headers={"Authorization": f"token {token}"})
        if answer.status_code in _UNKNOWN:
            return None
        try:
            return Visitor.model_validate_json(answer.content)
        except ValidationError as error:
            raise Temporary("the hub's answer can't be read") from error

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
        answer = await self._send("POST", "oauth2/token", data=form)
        if answer.status_code != HTTPStatus.OK:
            raise Permanent("the hub did not complete the login")
        return str(answer.json()["access_token"])

    async def _send(self, method: str, path: str, **fields: Any) -> httpx.Response:
        try:
            answer = await self._client.request(method, path, **fields)
        except httpx.HTTPError as error:
            raise Temporary("the hub does not answer") from error
        if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            raise Temporary("the hub can't answer now")
        return answer
