"""Stands for a workspace's server with a WebSocket: `<its own prefix>api` says its pid, `<prefix>ws` says all again."""

import os
from urllib.parse import urlsplit

from aiohttp import web


async def _api(_: web.Request) -> web.Response:
    return web.Response(text=str(os.getpid()), headers={"X-JupyterHub-Version": "6.1.1"})


async def _talk(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(str(message.data))
    return socket


def main() -> None:
    url, prefix = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"]), os.environ["JUPYTERHUB_SERVICE_PREFIX"]
    app = web.Application()
    app.router.add_get(f"{prefix}api", _api)
    app.router.add_get(f"{prefix}ws", _talk)
    web.run_app(app, host=url.hostname, port=url.port, print=None)


if __name__ == "__main__":
    main()
