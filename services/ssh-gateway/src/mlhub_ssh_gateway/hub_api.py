"""The part of the hub's REST API that the gateway uses."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import BaseModel, Field, SecretStr, ValidationError

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.errors import MLHubError, NotFound, Permanent, Temporary

_REFUSALS = frozenset({401, 403, 404})
_PAGE = 200
_MOST_PAGES = 20
_PAGINATED = {"Accept": "application/jupyterhub-pagination+json"}
_ALREADY = ("is already running", "is pending")


class Identity(BaseModel):
    """Whom a token belongs to, and what it may do."""

    name: str
    kind: str = "user"
    scopes: list[str] = Field(default_factory=list)

    @property
    def requester(self) -> str:
        """As commands and events name it."""
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True)
class HubApi:
    """Asks the hub; Temporary when it can't be asked, Permanent when it says no."""

    client: httpx.AsyncClient
    headers: dict[str, str] = field(repr=False)

    @classmethod
    def open(cls, url: str, token: SecretStr | None, timeout: timedelta) -> "HubApi":
        """A client of its own; `close` it."""
        client = httpx.AsyncClient(
            base_url=url.rstrip("/") + "/",
            timeout=timeout.total_seconds(),
            trust_env=False,
            limits=httpx.Limits(max_connections=32),
        )
        return cls(client, {"Authorization": f"token {token.get_secret_value()}"} if token else {})

    async def close(self) -> None:
        """End all connections."""
        await self.client.aclose()

    async def whose(self, token: str) -> Identity | None:
        """Whom this token belongs to, None if to nobody (any more)."""
        if not token.isascii() or not token.isprintable():
            return None
        answer = await self._send("GET", "user", headers={"Authorization": f"token {token}"})
        return None if answer.status_code in _REFUSALS else _identity(answer)

    async def is_user(self, name: str) -> bool:
        """Whether the hub knows this user."""
        answer = await self._send("GET", f"users/{_quoted(name)}")
        return answer.status_code != 404 and bool(_good(answer))

    async def is_admin(self, name: str) -> bool:
        """Whether this user is an admin."""
        answer = await self._send("GET", f"users/{_quoted(name)}")
        return answer.status_code != 404 and _body(answer).get("admin") is True

    async def shared_scopes(self, name: str, workspace: WorkspaceId) -> list[str]:
        """The scopes that a share of this workspace, with the user or a group of theirs, gives."""
        direct = await self._send(
            "GET", f"users/{_quoted(name)}/shared/{_quoted(workspace.user)}/{_quoted(workspace.server)}"
        )
        scopes: list[str] = [] if direct.status_code == 404 else list(_body(direct).get("scopes", []))
        return scopes or await self._group_scopes(name, workspace)

    async def exists(self, workspace: WorkspaceId) -> bool:
        """Whether the hub knows this server, running or not."""
        answer = await self._send("GET", _server(workspace))
        return answer.status_code != 404 and bool(_good(answer))

    async def start(self, workspace: WorkspaceId) -> bool:
        """Ask for a start; False if the hub says that it runs, or is busy with it, already."""
        answer = await self._send("POST", _server(workspace), json={})
        if answer.status_code == 400 and any(phrase in _message(answer) for phrase in _ALREADY):
            return False
        _good(answer)
        return True

    async def report_activity(self, workspace: WorkspaceId, when: datetime) -> None:
        """Tell the hub that a workspace was in use then."""
        stamp = when.astimezone(UTC).isoformat()
        body = {"servers": {workspace.server: {"last_activity": stamp}}}
        _good(await self._send("POST", f"users/{_quoted(workspace.user)}/activity", json=body))

    async def _group_scopes(self, name: str, workspace: WorkspaceId) -> list[str]:
        scopes: list[str] = []
        for page in range(_MOST_PAGES):
            query = {"offset": page * _PAGE, "limit": _PAGE}
            path = f"users/{_quoted(name)}/shared"
            reply = await self._send("GET", path, params=query, headers=self.headers | _PAGINATED)
            if reply.status_code == 404:
                # A user who is gone has no share, and must not be taken for one whom the hub can't be asked about.
                break
            answer = _body(reply)
            for share in answer.get("items", []):
                server = share.get("server", {})
                if (server.get("user", {}).get("name"), server.get("name")) == (workspace.user, workspace.server):
                    scopes += share.get("scopes", [])
            if not answer.get("_pagination", {}).get("next"):
                break
        return scopes

    async def _send(self, method: str, path: str, **fields: Any) -> httpx.Response:
        fields.setdefault("headers", self.headers)
        try:
            return await self.client.request(method, path, **fields)
        except httpx.HTTPError as error:
            raise Temporary("the hub does not answer") from error


def _good(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    raise _error(answer)


def _error(answer: httpx.Response) -> MLHubError:
    message = _message(answer) or answer.reason_phrase
    if answer.status_code >= 500 or answer.status_code == 429:
        return Temporary(f"the hub can't do that now: {message}")
    if answer.status_code == 404:
        return NotFound("the hub knows of no such workspace or user")
    return Permanent(f"the hub refuses: {message}")


def _message(answer: httpx.Response) -> str:
    try:
        body = answer.json()
    except ValueError:
        return ""
    return str(body.get("message", "")) if isinstance(body, dict) else ""


def _body(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = _good(answer).json()
    except ValueError as error:
        raise Permanent("the hub's answer can't be read") from error
    if not isinstance(body, dict):
        raise Permanent("the hub's answer can't be read")
    return body


def _identity(answer: httpx.Response) -> Identity:
    try:
        return Identity.model_validate(_body(answer))
    except ValidationError as error:
        raise Permanent("the hub's answer can't be read") from error


def _server(workspace: WorkspaceId) -> str:
    base = f"users/{_quoted(workspace.user)}"
    return f"{base}/servers/{_quoted(workspace.server)}" if workspace.server else f"{base}/server"


def _quoted(name: str) -> str:
    return quote(name, safe="")
