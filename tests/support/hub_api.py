"""A scripted stand-in for JupyterHub's REST API: the routes, codes and bodies that the SSH gateway meets."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Started = Callable[[str, str], Awaitable[web.Response | None]]

SERVICE_TOKEN = "the-gateway's-own-token-of-the-test"


@dataclass
class ScriptedHub:
    """What the hub knows; tests change it as they go."""

    url: str = ""
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> `admin` and the names of `servers`."""
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Token -> what `GET /user` answers."""
    shares: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    """(user, owner, server) -> scopes."""
    group_shares: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    """The same, through a group of the user's."""
    on_start: Started | None = None
    """Called with user and server when a start is asked for; answers 201 by itself."""
    is_down: bool = False
    asked: list[str] = field(default_factory=list)
    """`METHOD path` of every request."""
    activity: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def add_user(self, name: str, *servers: str, admin: bool = False) -> None:
        self.users[name] = {"admin": admin, "servers": {"", *servers}}

    def add_token(self, token: str, name: str, *scopes: str, kind: str = "user") -> None:
        self.tokens[token] = {"kind": kind, "name": name, "admin": False, "scopes": sorted(scopes)}

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._check])
        app.router.add_get("/hub/api/user", self._whoami)
        app.router.add_get("/hub/api/users/{user}", self._user)
        app.router.add_get("/hub/api/users/{user}/server", self._server)
        app.router.add_post("/hub/api/users/{user}/server", self._start)
        app.router.add_get("/hub/api/users/{user}/servers/{server}", self._server)
        app.router.add_post("/hub/api/users/{user}/servers/{server}", self._start)
        app.router.add_get("/hub/api/users/{user}/shared", self._shared_list)
        app.router.add_get("/hub/api/users/{user}/shared/{owner}/{server:.*}", self._shared)
        app.router.add_post("/hub/api/users/{user}/activity", self._activity)
        return app

    @web.middleware
    async def _check(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.rel_url.raw_path}")
        if self.is_down:
            return _error(503, "the hub is down")
        token = request.headers.get("Authorization", "").removeprefix("token ")
        if token != SERVICE_TOKEN and request.path != "/hub/api/user":
            return _error(403, "Missing or invalid credentials.")
        return await handler(request)

    async def _whoami(self, request: web.Request) -> web.Response:
        found = self.tokens.get(request.headers.get("Authorization", "").removeprefix("token "))
        return web.json_response(found) if found else _error(403, "Missing or invalid credentials.")

    async def _user(self, request: web.Request) -> web.Response:
        name = request.match_info["user"]
        if name not in self.users:
            return _error(404, "Not Found")
        return web.json_response({"kind": "user", "name": name, "admin": self.users[name]["admin"]})

    async def _server(self, request: web.Request) -> web.Response:
        user, server = request.match_info["user"], request.match_info.get("server", "")
        if server not in self.users.get(user, {}).get("servers", ()):
            return _error(404, "Not Found")
        return web.json_response({"name": server})

    async def _start(self, request: web.Request) -> web.Response:
        user, server = request.match_info["user"], request.match_info.get("server", "")
        answer = await self.on_start(user, server) if self.on_start else None
        return answer or web.Response(status=201)

    async def _shared(self, request: web.Request) -> web.Response:
        user, owner, server = (request.match_info[name] for name in ("user", "owner", "server"))
        scopes = self.shares.get((user, owner, server))
        if scopes is None:
            return _error(404, f"No such share for user {user} on {owner}/{server}")
        return web.json_response(_share(owner, server, scopes))

    async def _shared_list(self, request: web.Request) -> web.Response:
        user = request.match_info["user"]
        if user not in self.users:
            return _error(404, f"No such user: {user}")
        everything = {**self.shares, **self.group_shares}
        items = [_share(owner, server, scopes) for (name, owner, server), scopes in everything.items() if name == user]
        offset, limit = int(request.query.get("offset", 0)), int(request.query.get("limit", 50))
        more = offset + limit < len(items)
        pagination = {"offset": offset, "limit": limit, "total": len(items), "next": {"offset": 1} if more else None}
        return web.json_response({"items": items[offset : offset + limit], "_pagination": pagination})

    async def _activity(self, request: web.Request) -> web.Response:
        self.activity.append((request.match_info["user"], await request.json()))
        return web.Response(status=200)


@asynccontextmanager
async def scripted_hub() -> AsyncIterator[ScriptedHub]:
    """A hub on a free port."""
    hub = ScriptedHub()
    runner = web.AppRunner(hub.application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    hub.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hub/api"
    yield hub
    await runner.cleanup()


def refusal(status: int, message: str) -> web.Response:
    """How JupyterHub says no."""
    return _error(status, message)


def _share(owner: str, server: str, scopes: list[str]) -> dict[str, Any]:
    return {"server": {"user": {"name": owner}, "name": server}, "scopes": scopes, "kind": "user"}


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"status": status, "message": message}, status=status)
