"""What stands before the hub and the clean-up in a test: one address for both, as the proxy gives."""

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from tests.support.ports import free_port

_HOP_BY_HOP = {"transfer-encoding", "content-encoding", "content-length", "connection", "keep-alive"}


class FrontDoor:
    """Sends each path to the target with the longest prefix of it, untouched."""

    def __init__(self) -> None:
        self.port = free_port()
        self.targets: dict[str, str] = {}
        self._runner: web.AppRunner | None = None
        self._client: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        # By name: cookie jars of clients keep nothing for addresses.
        return f"http://localhost:{self.port}"

    async def start(self) -> None:
        self._client = aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._forward)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()

    async def _forward(self, request: web.Request) -> web.Response:
        assert self._client is not None
        prefix = max((prefix for prefix in self.targets if request.path.startswith(prefix)), key=len)
        async with self._client.request(
            request.method,
            self.targets[prefix] + request.raw_path,
            headers=request.headers,
            data=await request.read(),
            allow_redirects=False,
        ) as answer:
            headers = CIMultiDict(answer.headers)
            for name in _HOP_BY_HOP:
                headers.popall(name, None)
            return web.Response(status=answer.status, body=await answer.read(), headers=headers)
