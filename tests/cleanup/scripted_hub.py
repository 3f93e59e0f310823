"""A hub's REST API that lists, hides, breaks and lies as a test wants it to."""

from collections.abc import Awaitable, Callable

from aiohttp import web

TOKEN = "a-token-of-the-clean-up-in-tests"
PAGE = 3


class ScriptedHub:
    """Answers `/hub/api/user`, `/users` by pages of three, and `/users/NAME`."""

    def __init__(self) -> None:
        self.users: list[str] = []
        self.unlisted: set[str] = set()
        """Exist, but are on no page."""
        self.scopes = ["list:users", "read:users:name", "custom:cleanup:run"]
        self.break_page: Callable[[int], web.Response | None] = lambda _: None
        """Another answer for the page at this offset."""
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        """What happens while a page is made."""
        self.pages_asked: list[int] = []
        self.asked_about: list[str] = []
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self, port: int = 0) -> None:
        app = web.Application()
        app.router.add_get("/hub/api/user", self._me)
        app.router.add_get("/hub/api/users", self._list)
        app.router.add_get("/hub/api/users/{name}", self._one)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hub/api"

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _me(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"token {TOKEN}":
            return web.json_response({"status": 403}, status=403)
        return web.json_response({"kind": "service", "name": "cleanup-service", "scopes": self.scopes})

    async def _list(self, request: web.Request) -> web.Response:
        assert "jupyterhub-pagination" in request.headers["Accept"]
        offset = int(request.query["offset"])
        self.pages_asked.append(offset)
        if self.meanwhile is not None:
            await self.meanwhile()
        if (broken := self.break_page(offset)) is not None:
            return broken
        listed = [name for name in self.users if name not in self.unlisted]
        following = {"offset": offset + PAGE, "limit": PAGE} if offset + PAGE < len(listed) else None
        pagination = {"offset": offset, "limit": PAGE, "total": len(listed), "next": following}
        items = [{"name": name} for name in listed[offset : offset + PAGE]]
        return web.json_response({"items": items, "_pagination": pagination})

    async def _one(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self.asked_about.append(name)
        if name in self.users:
            return web.json_response({"name": name})
        return web.json_response({"status": 404, "message": "Not Found"}, status=404)
