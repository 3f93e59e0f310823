"""Somebody logged in as the admin, with cookies as a browser keeps them."""

import httpx

from tests.hub.conftest import Stage
from tests.support.hub_process import ADMIN_PASSWORD


def browser_of(stage: Stage) -> httpx.AsyncClient:
    """A client that logs in when it is entered."""
    return browser_at(stage.hub.url)


def browser_at(url: str) -> httpx.AsyncClient:
    """The same, of any hub."""
    return _LoggedIn(base_url=url.replace("127.0.0.1", "localhost"))


class _LoggedIn(httpx.AsyncClient):
    async def __aenter__(self) -> "_LoggedIn":
        await super().__aenter__()
        await self.get("/hub/login")
        form = {"username": "admin", "password": ADMIN_PASSWORD, "_xsrf": self.cookies["_xsrf"]}
        answer = await self.post("/hub/login", data=form)
        assert answer.status_code == 302, answer.text[-3000:]
        return self
