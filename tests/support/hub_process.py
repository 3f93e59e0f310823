"""The real hub as a process of its own."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.nats_server import PASSWORD, USER, NatsServer
from tests.support.ports import free_port

API_TOKEN = "the-token-of-the-tests-which-is-long-enough"
ADMIN_PASSWORD = "correct-horse-battery-staple"


class HubProcess:
    """Starts, kills and restarts one hub on one port, database and bus."""

    def __init__(self, folder: Path, nats: NatsServer, probe_url: str, **environment: str) -> None:
        self.folder, self.port = folder, free_port()
        self.log = folder / "hub.log"
        self._environment = {
            # JupyterHub calls alembic by its name.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MLHUB_HUB_NAME": "test",
            "MLHUB_NATS_URL": nats.url,
            "MLHUB_NATS_USER": USER,
            "MLHUB_NATS_PASSWORD": PASSWORD,
            "MLHUB_LOG_FORMAT": "json",
            "MLHUB_HUB_LISTEN_PORT": str(self.port),
            "MLHUB_HUB_TARGET_URL": self.url,
            "MLHUB_HUB_PUBLIC_URL": self.url,
            "MLHUB_HUB_PROBE_URL": probe_url,
            "MLHUB_HUB_DATA_DIR": str(folder / "data"),
            "MLHUB_API_TOKEN": API_TOKEN,
            "MLHUB_ADMIN_PASSWORD": ADMIN_PASSWORD,
        } | environment
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set(self, **environment: str) -> None:
        """For the next start."""
        self._environment |= environment

    async def start(self, *, within: float = 40) -> Self:
        await self.begin()
        await self.answers(within=within)
        return self

    async def begin(self) -> None:
        """Start without waiting."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "mlhub_hub", stdout=log, stderr=log, env=self._environment, cwd=self.folder
            )

    async def answers(self, *, within: float = 40) -> None:
        async with asyncio.timeout(within):
            while True:
                assert self._process is not None
                if self._process.returncode is not None:
                    raise RuntimeError(self.log.read_text()[-4000:])
                try:
                    async with httpx.AsyncClient() as client:
                        await client.get(f"{self.url}/hub/api")
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
                else:
                    return

    async def kill(self) -> None:
        """kill -9."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        return await self._end(signal.SIGTERM)

    async def ended(self) -> int:
        """Wait for an end that comes by itself."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), 30)

    async def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.returncode is None:
            process.send_signal(number)
        return await asyncio.wait_for(process.wait(), 20)


class Api:
    """The hub's REST API with one token."""

    def __init__(self, hub: HubProcess, token: str = API_TOKEN) -> None:
        self._hub, self.token = hub, token

    async def __call__(self, method: str, path: str, body: Any = None, *, expect: int | None = None) -> Any:
        """The answer's JSON (or text); AssertionError if `expect` is not its status."""
        response = await self.response(method, path, body)
        if expect is not None:
            assert response.status_code == expect, f"{method} {path}: {response.status_code} {response.text[:500]}"
        return response.json() if "json" in response.headers.get("content-type", "") else response.text

    async def response(self, method: str, path: str, body: Any = None) -> httpx.Response:
        async with httpx.AsyncClient(timeout=60) as client:
            headers = {"Authorization": f"token {self.token}"}
            return await client.request(method, f"{self._hub.url}/hub/api{path}", json=body, headers=headers)

    async def status(self, method: str, path: str, body: Any = None) -> int:
        return (await self.response(method, path, body)).status_code

    async def server(self, user: str, server: str = "") -> dict[str, Any] | None:
        """A server as the user's model shows it; None where it is not running or about to."""
        model = await self("GET", f"/users/{user}", expect=200)
        found: dict[str, Any] | None = model["servers"].get(server)
        return found

    @asynccontextmanager
    async def progress(self, user: str, server: str = "") -> AsyncIterator["Progress"]:
        """The progress of a spawn, as it comes."""
        path = f"/users/{user}/servers/{server}/progress" if server else f"/users/{user}/server/progress"
        async with httpx.AsyncClient(timeout=60) as client:
            headers = {"Authorization": f"token {self.token}"}
            async with client.stream("GET", f"{self._hub.url}/hub/api{path}", headers=headers) as response:
                assert response.status_code == 200, await response.aread()
                yield Progress(response)


class Progress:
    """Messages of a progress stream."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.seen: list[dict[str, Any]] = []

    async def until(self, **expected: Any) -> dict[str, Any]:
        """The next message that has these values; texts may be a part of the message's."""
        try:
            async with asyncio.timeout(20):
                async for line in self._lines:
                    if not line.startswith("data: "):
                        continue
                    message = json.loads(line.removeprefix("data: "))
                    self.seen.append(message)
                    if all(_fits(message.get(key), value) for key, value in expected.items()):
                        return dict(message)
        except TimeoutError:
            raise AssertionError(f"nothing more came after {self.seen}") from None
        raise AssertionError(f"the stream ended without {expected}: {self.seen}")

    async def to_end(self) -> list[dict[str, Any]]:
        """All messages."""
        async with asyncio.timeout(30):
            async for line in self._lines:
                if line.startswith("data: "):
                    self.seen.append(json.loads(line.removeprefix("data: ")))
        return self.seen


def _fits(found: Any, expected: Any) -> bool:
    return expected in found if isinstance(found, str) and isinstance(expected, str) else bool(found == expected)
