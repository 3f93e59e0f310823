"""How connections to a pod's ports begin, where the API server is not at its best."""

import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer
from kubernetes_asyncio.client import Configuration

from mlhub_spawner_worker.backends.kubernetes.port_forward import PortStreams
from mlhub_spawner_worker.backends.kubernetes.stream import Channels, StreamClient
from mlhub_spawner_worker.entry import EntryError

PROTOCOL = "v4.channel.k8s.io"


async def dies(request: web.Request) -> web.WebSocketResponse:
    """An API server that ends without a word, as soon as it has agreed."""
    socket = web.WebSocketResponse(protocols=(PROTOCOL,))
    await socket.prepare(request)
    assert request.transport is not None
    request.transport.abort()
    assert (await socket.receive()).type is WSMsgType.CLOSED
    return socket


async def test_a_connection_that_breaks_as_it_begins_is_refused_in_words() -> None:
    app = web.Application()
    app.router.add_get("/pods/one/portforward", dies)
    async with TestServer(app, host="127.0.0.1") as server:
        client = StreamClient(Configuration(host=str(server.make_url("")).rstrip("/")))
        try:
            channels = await Channels.open(client, "/pods/one/portforward", {"ports": 4000}, protocol=PROTOCOL)
            streams = PortStreams(channels)
            with pytest.raises(EntryError, match="the connection to the workspace is lost"):
                await streams.begin()
            await streams.close()
        finally:
            await client.aclose()
