"""The engine: one client, whose every call is bounded and whose every error is translated."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiodocker
import aiohttp
import structlog

from mlhub_shared.bus.backoff import Backoff
from mlhub_spawner_worker.backends.docker.errors import EngineAway, Missing, translate, translated
from mlhub_spawner_worker.backends.docker.events import Events

log = structlog.get_logger(__name__)

_CALL = aiohttp.ClientTimeout(total=60, sock_connect=5)
"""For one call; what takes longer by its nature says so itself."""

_FRESH = aiohttp.ClientTimeout(total=5)

_PATIENCE = 60
"""Seconds for the engine to be there when the worker starts."""


class Engine:
    """One Docker engine. `docker` is its client, for use under `translated`."""

    def __init__(self, url: str, hub: str, *, cert_dir: Path | None = None) -> None:
        self._url, self._cert_dir = url, cert_dir
        self._version = "auto"
        self._connector: aiohttp.BaseConnector
        self.docker: aiodocker.Docker
        self.events = Events(self, hub)
        self.info: Mapping[str, Any] = {}
        self.boot = ""
        """As it was last seen; changes exactly when the engine was started anew and its containers have died."""

    async def open(self) -> None:
        """Connect; EngineAway if nobody answers for a minute."""
        self.docker, self._connector = self._client(_CALL)
        try:
            await self._meet()
        except BaseException:
            await self._close()
            raise

    async def aclose(self) -> None:
        """Close every connection."""
        await self.events.aclose()
        await self._close()

    async def look_at_boot(self) -> str:
        """Ask over a new connection: an engine that is ending still serves old ones, after its listener is closed.

        The default bridge is made anew at every start of an engine but one that has found containers alive (live
        restore), so the moment of its making tells whether containers can have died with the engine.
        """
        docker, connector = self._client(_FRESH)
        try:
            with translated("describe its default network"):
                made = await _made_at(docker)
        finally:
            await docker.close()
            await connector.close()
        self.boot = f"{self.info.get('ID', '')}/{made}"
        return self.boot

    async def read(self, path: str, **params: str) -> bytes:
        """The answer to a GET as it is: for what aiodocker has no call for."""
        with translated(f"read {path}"):
            async with self.docker._query(path, "GET", params=params) as response:
                content: bytes = await response.read()
                return content

    async def stream(
        self,
        path: str,
        *,
        method: str = "GET",
        silence: float,
        opened: Callable[[], None] = lambda: None,
        headers: Mapping[str, str] | None = None,
        **params: str,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The JSON objects of an endless answer; EngineAway after `silence` seconds without one.

        By hand: aiodocker's own reader gives up on an object of more than 128 KiB.
        """
        bounds = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=silence)
        with translated(f"follow {path}"):
            async with self.docker._query(path, method, params=params, headers=headers, timeout=bounds) as response:
                opened()
                rest = b""
                async with contextlib.aclosing(_chunks(response)) as chunks:
                    async for chunk in chunks:
                        *lines, rest = (rest + chunk).split(b"\n")
                        for line in lines:
                            if line.strip():
                                yield json.loads(line)

    def _client(self, bounds: aiohttp.ClientTimeout) -> tuple[aiodocker.Docker, aiohttp.BaseConnector]:
        # No limit of connections: sessions of people hold one each for hours.
        connector: aiohttp.BaseConnector
        if self._url.startswith("unix://"):
            connector = aiohttp.UnixConnector(self._url.removeprefix("unix://"), limit=0)
        else:
            connector = aiohttp.TCPConnector(limit=0, ssl=self._tls() or True)
        url = self._url.replace("tcp://", "https://" if self._cert_dir else "http://", 1)
        client = aiodocker.Docker(url, connector=connector, timeout=bounds, api_version=self._version)
        if self._url.startswith("unix://"):
            client.docker_host = "unix://localhost"
        return client, connector

    def _tls(self) -> ssl.SSLContext | None:
        if self._cert_dir is None:
            return None
        context = ssl.create_default_context(cafile=str(self._cert_dir / "ca.pem"))
        context.load_cert_chain(self._cert_dir / "cert.pem", self._cert_dir / "key.pem")
        return context

    async def _meet(self) -> None:
        backoff = Backoff(first=0.2, most=5)
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        while True:
            try:
                with translated("say what it is"):
                    self.info = await self.docker.system.info()
                self._version = self.docker.api_version
                await self.look_at_boot()
            except EngineAway as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                log.info("docker.engine_awaited", why=str(error))
                await backoff.sleep()
            else:
                return

    async def _close(self) -> None:
        await self.docker.close()
        await self._connector.close()


async def _made_at(docker: aiodocker.Docker) -> str:
    try:
        bridge = await docker.networks.get("bridge")
        return str((await bridge.show())["Created"])
    except aiodocker.DockerError as error:
        if isinstance(translate(error.status, error.message, ""), Missing):
            return ""
        raise


async def _chunks(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    finally:
        # Not `release`: that reads to the end, which never comes.
        response.close()
