"""What the API says of a program's end, and what it leaves unsaid: frames of a server that says what the test wants."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from kubernetes_asyncio.client import Configuration

from mlhub_spawner_worker.backends.kubernetes.exec import KubernetesPlace, PodEntry
from mlhub_spawner_worker.backends.kubernetes.stream import StreamClient
from mlhub_spawner_worker.entry import Client, EntryError, Order, What

V5 = "v5.channel.k8s.io"
READY, PREFACE = b"\x01\x1e", b"\x01\x1e7\n"
TRUE = Order(What.COMMAND, "true")


class Quiet:
    """A client that remembers what it is told."""

    def __init__(self) -> None:
        self.output, self.errors = b"", b""

    def write(self, data: bytes, *, is_error: bool = False) -> None:
        if is_error:
            self.errors += data
        else:
            self.output += data

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def result(**fields: object) -> bytes:
    return b"\x03" + json.dumps(fields).encode()


def ended_with(code: int) -> bytes:
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return result(status="Failure", reason="NonZeroExitCode", details={"causes": causes})


FAILED = result(status="Failure", reason="InternalError", message="no such file: /bin/sh", code=500)


@asynccontextmanager
async def entry(*frames: bytes, protocol: str = V5, refused: int = 0) -> AsyncIterator[PodEntry]:
    """The way into a pod of which the API says these frames, at once."""

    async def serve(request: web.Request) -> web.StreamResponse:
        if refused:
            return web.Response(status=refused)
        socket = web.WebSocketResponse(protocols=(protocol,))
        await socket.prepare(request)
        for frame in frames if request.query["stdin"] == "True" else (result(status="Success"),):
            await socket.send_bytes(frame)
        await socket.close()
        return socket

    app = web.Application()
    app.router.add_get("/api/v1/namespaces/ns/pods/pod/exec", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    client = StreamClient(configuration)
    try:
        async with asyncio.timeout(30):
            yield PodEntry(KubernetesPlace(client, "ns", "pod"), home=None)
    finally:
        await client.aclose()
        await runner.cleanup()


async def run(entry: PodEntry, client: Client) -> int:
    child = await entry.run(TRUE, client)
    child.resume_reading()
    return await child.wait()


@pytest.mark.parametrize(
    ("said", "status"), [(result(status="Success"), 0), (ended_with(7), 7), (ended_with(137), 137)]
)
async def test_a_result_is_a_status_also_before_the_last_output(said: bytes, status: int) -> None:
    empty = (b"\x00", b"\x01", b"\x02", b"\x03", b"")
    async with entry(*empty, READY, b"\x01", PREFACE, said, b"\x01out", b"\x02err") as way:
        assert await run(way, client := Quiet()) == status
    assert (client.output, client.errors) == (b"out", b"err")


@pytest.mark.parametrize(
    "frames",
    [(), (b"\x03not json",), (result(status="Failure"),), (result(status="Failure", reason="NonZeroExitCode"),)],
)
async def test_an_end_without_a_status_is_a_loss(frames: tuple[bytes, ...]) -> None:
    async with entry(READY, PREFACE, b"\x01out", *frames) as way:
        assert await run(way, client := Quiet()) == 255
    assert client.output == b"out"
    assert client.errors.endswith(b"the connection to the workspace is lost\r\n")


@pytest.mark.parametrize("frames", [(FAILED,), (READY, FAILED), (b"\x02no such file: /bin/sh", ended_with(127))])
async def test_why_nothing_can_be_run_is_told(frames: tuple[bytes, ...]) -> None:
    async with entry(*frames) as way:
        with pytest.raises(EntryError, match="no such file: /bin/sh"):
            await run(way, Quiet())


async def test_a_workspace_that_says_anything_but_that_it_is_ready_is_not_listened_to_for_long() -> None:
    async with entry(*[b"\x01" + bytes(500)] * 1000) as way:
        with pytest.raises(EntryError):
            await run(way, Quiet())


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "not running"),
        (401, "token is not accepted"),
        (403, "create and get pods/exec"),
        (404, "pod is gone"),
        (503, "lets nobody in now: HTTP 503"),
    ],
)
async def test_what_is_refused_is_said(status: int, said: str) -> None:
    async with entry(refused=status) as way:
        with pytest.raises(EntryError, match=said):
            await run(way, Quiet())


async def test_a_cluster_that_knows_only_the_older_protocol_is_too_old() -> None:
    async with entry(protocol="v4.channel.k8s.io") as way:
        with pytest.raises(EntryError, match=r"Kubernetes 1\.30 or newer"):
            await run(way, Quiet())
