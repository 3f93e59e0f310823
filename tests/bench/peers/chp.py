"""configurable-http-proxy, as npm brings it."""

import asyncio
import secrets
import shutil
from pathlib import Path

import aiohttp

from tests.bench.bench import NotAvailableError
from tests.bench.processes import Child
from tests.support.ports import free_port

VERSION = "5.3.0"
_PATIENCE = 180


async def install(folder: Path) -> Path:
    """The command, fetched by npm unless it lies there already."""
    command = folder / "node_modules" / ".bin" / "configurable-http-proxy"
    if not shutil.which("node"):
        raise NotAvailableError("there is no node on PATH")
    if command.exists():
        return command
    if not (npm := shutil.which("npm")):
        raise NotAvailableError("there is no npm on PATH")
    package = f"configurable-http-proxy@{VERSION}"
    process = await asyncio.create_subprocess_exec(
        *(npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", package),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_PATIENCE):
            _, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise NotAvailableError(f"npm did not bring {package} within {_PATIENCE} s") from None
    if process.returncode != 0 or not command.exists():
        raise NotAvailableError(f"npm did not bring {package}: {errors.decode(errors='replace').strip()[-200:]}")
    return command


class ConfigurableHttpProxy(Child):
    """One proxy, with its API."""

    def __init__(self, name: str, command: Path, folder: Path) -> None:
        public, api = free_port(), free_port()
        self._token = secrets.token_hex(32)
        self.url, self._api = f"http://127.0.0.1:{public}", f"http://127.0.0.1:{api}/api/routes"
        super().__init__(
            name,
            [
                str(command),
                *("--ip", "127.0.0.1", "--port", str(public)),
                *("--api-ip", "127.0.0.1", "--api-port", str(api)),
                *("--log-level", "error"),
            ],
            folder,
            {"CONFIGPROXY_AUTH_TOKEN": self._token},
        )

    def session(self) -> aiohttp.ClientSession:
        """For its API."""
        return aiohttp.ClientSession(headers={"Authorization": f"token {self._token}"})

    async def add(self, session: aiohttp.ClientSession, path: str, target: str) -> None:
        """Add a route."""
        async with session.post(self._api + path, json={"target": target}) as response:
            response.raise_for_status()

    async def remove(self, session: aiohttp.ClientSession, path: str) -> None:
        """Remove a route."""
        async with session.delete(self._api + path) as response:
            response.raise_for_status()

    async def is_up(self) -> bool:
        """Whether the API answers."""
        async with self.session() as session, session.get(self._api) as response:
            return response.status == 200
