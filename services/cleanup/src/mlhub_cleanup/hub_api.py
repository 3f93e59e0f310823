"""The part of the hub's REST API that tells who its users are."""

from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
from pydantic import BaseModel, SecretStr, ValidationError

from mlhub_cleanup.metrics import HUB_ANSWERS
from mlhub_shared.errors import Permanent, Temporary

_TIMEOUT = 10.0
"""Seconds for one page of users."""

_PAGE = 200
"""The most that the hub gives at once."""

_MOST_PAGES = 5000
"""A hub whose pages never end is broken."""

_PAGED = "application/jupyterhub-pagination+json"
_NEEDED = {"list:users", "read:users:name"}


class _Whoami(BaseModel):
    scopes: list[str]


class _User(BaseModel):
    name: str


class _Pagination(BaseModel):
    offset: int
    total: int
    next: dict[str, Any] | None = None


class _Page(BaseModel):
    items: list[_User]
    pagination: _Pagination

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Self:
        """Read the hub's form of a page."""
        return cls.model_validate({"items": answer.get("items"), "pagination": answer.get("_pagination")})


class HubApi:
    """Asks the hub; whatever is not a plain answer is an error, never an empty list."""

    def __init__(self, url: str, token: SecretStr | None) -> None:
        headers = {"Authorization": f"token {token.get_secret_value()}"} if token else {}
        self._has_token = token is not None
        self._client = httpx.AsyncClient(
            base_url=url, headers=headers, timeout=_TIMEOUT, trust_env=False, follow_redirects=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def users(self) -> set[str]:
        """The names of all users; Temporary unless the hub showed every one of them."""
        await self._require_scopes()
        names: set[str] = set()
        for _ in range(_MOST_PAGES):
            page = await self._page(len(names))
            before = len(names)
            names |= {user.name for user in page.items}
            if page.pagination.next is None:
                if len(names) != page.pagination.total:
                    raise Temporary(f"the hub showed {len(names)} of {page.pagination.total} users")
                return names
            if len(names) == before:
                break
        raise Temporary("the hub's list of users does not end")

    async def is_gone(self, user: str) -> bool:
        """Whether the hub says that there is no such user."""
        response = await self._get(f"/users/{quote(user, safe='')}", expect=(200, 404))
        return response.status_code == 404

    async def _require_scopes(self) -> None:
        # A token that may see only some users gets a list of these, and 404 for all others.
        response = await self._get("/user")
        scopes = _parsed(_Whoami, response).scopes
        if not set(scopes) >= _NEEDED:
            raise Permanent("the hub does not let this service see all users")

    async def _page(self, offset: int) -> _Page:
        query: dict[str, str | int] = {"offset": offset, "limit": _PAGE, "sort": "id"}
        response = await self._get("/users", query=query, accept=_PAGED)
        try:
            return _Page.parse(response.json())
        except (ValueError, AttributeError) as error:
            raise Temporary("the hub's list of users can't be read") from error

    async def _get(
        self,
        path: str,
        *,
        query: dict[str, str | int] | None = None,
        accept: str = "application/json",
        expect: tuple[int, ...] = (200,),
    ) -> httpx.Response:
        if not self._has_token:
            raise Permanent("this service has no token for the hub")
        try:
            response = await self._client.get(path, params=query, headers={"Accept": accept})
        except httpx.HTTPError as error:
            HUB_ANSWERS.set(0)
            raise Temporary(f"the hub does not answer: {type(error).__name__}") from error
        HUB_ANSWERS.set(1)
        if response.status_code in (401, 403):
            raise Permanent("the hub refuses this service's token")
        if response.status_code not in expect:
            raise Temporary(f"the hub answered {response.status_code}")
        return response


def _parsed(model: type[_Whoami], response: httpx.Response) -> _Whoami:
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        raise Temporary("the hub's answer can't be read") from error
