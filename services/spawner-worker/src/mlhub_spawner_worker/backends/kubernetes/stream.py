"""WebSockets to the Kubernetes API: several numbered channels in each, to a program of a pod or to a port of it."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes_asyncio.client import ApiClient, Configuration

from mlhub_shared.errors import MLHubError
from mlhub_shared.tasks import end_tasks
from mlhub_spawner_worker.backends.base import BackendError
from mlhub_spawner_worker.backends.inside import Lost
from mlhub_spawner_worker.backends.kubernetes.refusals import ApiAway, Forbidden, Missing, unheard
from mlhub_spawner_worker.backends.kubernetes.rights import right

_WITHIN = 15.0
"""Seconds to open one."""
_FAREWELL = 1.0
"""Seconds for the API to say goodbye."""
_SILENCE = 60.0
"""Seconds without any sign of life after which a connection is taken for lost."""
_PINGS = 3
"""In that time; they also keep what is between from taking it for idle."""


class StreamClient:
    """The API's client for WebSockets: people hold them for hours, and share no pool with the worker's calls."""

    def __init__(self, configuration: Configuration, *, silence: float = _SILENCE) -> None:
        """The configuration bounds no pool; after so many seconds of `silence` a connection is lost."""
        self._api = ApiClient(configuration)
        self.silence = silence

    async def connect(self, path: str, query: Mapping[str, Any], protocol: str) -> aiohttp.ClientWebSocketResponse:
        """Open one: the library's own way does not check which protocol is agreed to, and hides the API's pongs."""
        rest, headers = self._api.rest_client, dict[str, str]()
        await self._api.update_params_for_auth(headers, [], ["BearerToken"])
        session: aiohttp.ClientSession = rest.pool_manager
        socket = await session.ws_connect(
            f"{self._api.configuration.host}{path}?{urlencode(query, doseq=True)}",
            headers=headers,
            protocols=[protocol],
            autoping=False,
            proxy=rest.proxy,
            proxy_headers=rest.proxy_headers,
            server_hostname=rest.server_hostname,
        )
        if socket.protocol != protocol:
            await socket.close()
            raise BackendError("This cluster is too old for entering workspaces: it must be Kubernetes 1.30 or newer.")
        return socket

    async def aclose(self) -> None:
        """Cut off everything that is open."""
        await self._api.close()


class Channels:
    """One WebSocket. Nothing is read from it, but for what the kernel and one buffer hold, before somebody asks."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, *, silence: float) -> None:
        self._socket, self._silence = socket, silence
        self._written = self._heard = 0
        """Pieces, and as many of them as the API had taken when it last answered."""
        self._pinging = asyncio.ensure_future(self._ping())

    @classmethod
    async def open(cls, client: StreamClient, path: str, query: Mapping[str, Any], *, protocol: str) -> Self:
        """Open one to a pod's subresource, `.../pods/NAME/exec`. What can't be is a MLHubError."""
        subresource = f"pods/{path.rpartition('/')[2]}"
        try:
            async with asyncio.timeout(_WITHIN):
                socket = await client.connect(path, query, protocol)
        except aiohttp.WSServerHandshakeError as error:
            raise _refusal(error.status, subresource) from error
        except TimeoutError as error:
            raise ApiAway("The Kubernetes API took too long to let somebody in") from error
        except (aiohttp.ClientError, OSError) as error:
            raise unheard(error) from error
        return cls(socket, silence=client.silence)

    async def read(self) -> tuple[int, bytes] | None:
        """The next piece, after its channel; None: the API has closed it. Lost if nobody has."""
        while True:
            message = await self._receive()
            match message.type:
                case aiohttp.WSMsgType.BINARY if len(message.data) > 1:
                    return message.data[0], message.data[1:]
                case aiohttp.WSMsgType.CLOSE:
                    return None
                case aiohttp.WSMsgType.CLOSED | aiohttp.WSMsgType.CLOSING | aiohttp.WSMsgType.ERROR:
                    raise Lost
                case aiohttp.WSMsgType.PING:
                    with _lost():
                        await self._socket.pong(message.data)
                case aiohttp.WSMsgType.PONG if message.data.isdigit():
                    self._heard = int(message.data)

    async def write(self, channel: int, data: bytes) -> None:
        """Send a piece, and return when more may come; Lost if it can't be."""
        self._written += 1
        with _lost():
            await self._socket.send_bytes(bytes([channel]) + data)

    async def close(self) -> None:
        """Close it; who is slow to say goodbye is cut off."""
        await end_tasks(self._pinging)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await self._socket.close()

    async def _receive(self) -> aiohttp.WSMessage:
        while True:
            try:
                return await self._socket.receive(self._silence)
            except TimeoutError:
                # With input on its way it may wait for the program: meanwhile the API reads nothing, pings neither.
                if self._heard == self._written:
                    raise Lost from None

    async def _ping(self) -> None:
        with contextlib.suppress(OSError, aiohttp.ClientError):
            while True:
                await asyncio.sleep(self._silence / _PINGS)
                await self._socket.ping(b"%d" % self._written)


@contextlib.contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except (OSError, aiohttp.ClientError) as error:
        raise Lost from error


def _refusal(status: int, subresource: str) -> MLHubError:
    match status:
        case 401:
            return Forbidden("The Kubernetes API does not know the worker: its token is not accepted")
        case 403:
            purpose = right(subresource, "create").purpose
            return Forbidden(
                f"The worker may not create and get {subresource}, and can't {purpose} without: an administrator must "
                "give its Role both verbs (and clusters older than Kubernetes 1.30 answer so to everybody)"
            )
        case 404:
            return Missing("This workspace is not running: its pod is gone")
        case 400:
            return BackendError("This workspace is not running: its pod has ended, or has no such container")
        case _:
            return ApiAway(f"The Kubernetes API lets nobody in now: HTTP {status}")
