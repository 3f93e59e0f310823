"""`pods/portforward` over a WebSocket: two channels for each port, to the loopback of the pod."""

import asyncio
from contextlib import suppress

from aiohttp import WSMsgType, web

from tests.support.kube.errors import ApiError, bad_request
from tests.support.kube.exec import V4, running_life
from tests.support.kube.kubelet import Kubelet
from tests.support.kube.sandbox import Sandbox
from tests.support.kube.verbs import Place, Verbs

_CHUNK = 32 * 1024


class PortForward:
    """Carries connections into pods."""

    def __init__(self, kubelet: Kubelet, verbs: Verbs) -> None:
        self._kubelet, self._verbs = kubelet, verbs

    async def serve(self, request: web.Request, place: Place) -> web.StreamResponse:
        """Carry one connection for each port that is asked for."""
        pod = self._verbs.found(place)
        offered = [one.strip() for one in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if V4 not in offered:
            message = f"unable to upgrade: no supported protocol among {offered}"
            raise ApiError(403, "Forbidden", message)
        ports = _ports(request)
        life = running_life(self._kubelet, pod, pod.obj["spec"]["containers"][0]["name"])
        ws = web.WebSocketResponse(protocols=(V4,), max_msg_size=0)
        await ws.prepare(request)
        for channel in range(2 * len(ports)):
            await ws.send_bytes(bytes([channel]) + ports[channel // 2].to_bytes(2, "little"))
        if life.sandbox is not None:
            await _Carrier(ws, life.sandbox, ports).run()
        await ws.close()
        return ws


class _Carrier:
    """Between one WebSocket and the connections behind it."""

    def __init__(self, ws: web.WebSocketResponse, sandbox: Sandbox, ports: list[int]) -> None:
        self._ws, self._sandbox, self._ports = ws, sandbox, ports
        self._writers: dict[int, asyncio.StreamWriter] = {}

    async def run(self) -> None:
        """Until a side ends: there is no half of a close."""
        tasks = []
        try:
            for index, port in enumerate(self._ports):
                if (reader := await self._connect(index, port)) is None:
                    return
                tasks.append(asyncio.ensure_future(self._down(2 * index, reader)))
            tasks.append(asyncio.ensure_future(self._up()))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for writer in self._writers.values():
                writer.close()

    async def _connect(self, index: int, port: int) -> asyncio.StreamReader | None:
        try:
            reader, self._writers[2 * index] = await self._sandbox.connect(port)
        except OSError:
            uid = self._sandbox.uid
            text = f"error forwarding port {port} to pod {uid}, uid : failed to connect to localhost:{port} inside"
            text += f' namespace "{uid}", IPv4: dial tcp4 127.0.0.1:{port}: connect: connection refused'
            await self._ws.send_bytes(bytes([2 * index + 1]) + text.encode())
            return None
        return reader

    async def _down(self, channel: int, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                await self._ws.send_bytes(bytes([channel]) + data)

    async def _up(self) -> None:
        async for message in self._ws:
            if message.type is not WSMsgType.BINARY or len(message.data) < 2:
                continue
            if writer := self._writers.get(message.data[0]):
                with suppress(ConnectionError):
                    writer.write(message.data[1:])
                    await writer.drain()


def _ports(request: web.Request) -> list[int]:
    given = ",".join(request.query.getall("ports", []))
    try:
        ports = [int(one) for one in given.split(",")]
    except ValueError:
        raise bad_request("you must specify at least 1 port" if not given else f'unable to parse "{given}"') from None
    return ports
