"""A small server that says what reached it, echoes WebSockets, streams, and takes uploads."""

import asyncio
import json
from typing import Self

from aiohttp import WSMsgType, web
from multidict import CIMultiDict

CHUNKS = 3


class Backend:
    """One server on a free port of loopback."""

    def __init__(self, name: str) -> None:
        self.name, self.port = name, 0
        self.answer_headers: list[tuple[str, str]] = []
        """Beside its own, on plain answers."""
        self.paths: list[str] = []
        """All that was asked for."""
        self._runner: web.AppRunner | None = None
        self.proceed = asyncio.Event()
        """A stream sends its next piece when this is set."""

    async def start(self, port: int = 0) -> Self:
        app = web.Application(client_max_size=200 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.raw_path)
        match request.path.rsplit("/", 1)[-1]:
            case "ws":
                return await self._echo(request)
            case "stream":
                return await self._stream(request)
            case "silent":
                await asyncio.sleep(60)
        body = await request.read()
        said = {
            "name": self.name,
            "method": request.method,
            "path": request.raw_path,
            "headers": {key.lower(): value for key, value in request.headers.items()},
            "size": len(body),
        }
        headers = [("Content-Type", "application/json"), *self.answer_headers]
        return web.Response(text=json.dumps(said), headers=CIMultiDict(headers))

    async def _echo(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(f"{self.name}:{message.data}")
        return socket

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(CHUNKS):
            await response.write(f"data: {number}\n\n".encode())
            await self.proceed.wait()
            self.proceed.clear()
        return response
