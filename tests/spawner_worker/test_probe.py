"""Readiness is an answer of the workspace itself, through the proxy."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from mlhub_shared.contracts.workspace import Phase
from mlhub_spawner_worker.probe import HttpProbe
from tests.support.makers import record
from tests.support.ports import free_port


class Frontend:
    """Answers with the status it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.status, self.asked = "200 OK", list[str]()
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readline()).decode().strip())
        writer.write(f"HTTP/1.1 {self.status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@pytest.fixture
async def frontend() -> AsyncIterator[Frontend]:
    frontend = Frontend()
    server = await asyncio.start_server(frontend.answer, "127.0.0.1", 0)
    frontend.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield frontend
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("status", "is_ready"),
    [
        ("200 OK", True),
        ("302 Found", True),
        ("403 Forbidden", True),
        ("404 Not Found", True),
        ("404 Not Found\r\nX-MLHub-Gone: 1", False),
        ("502 Bad Gateway", False),
        ("503 Service Unavailable", False),
        ("504 Gateway Timeout", False),
    ],
)
async def test_what_counts_as_an_answer(frontend: Frontend, status: str, is_ready: bool) -> None:
    frontend.status = status
    async with HttpProbe.open(frontend.url + "/") as probe:
        assert await probe(record(phase=Phase.STARTING)) is is_ready
    assert frontend.asked == ["GET /user/alice/api HTTP/1.1"]


async def test_nobody_there_is_no_answer() -> None:
    async with HttpProbe.open(f"http://127.0.0.1:{free_port()}") as probe:
        assert await probe(record(phase=Phase.STARTING)) is False
