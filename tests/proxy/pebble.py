"""A real ACME server: Debian's pebble, with the DNS server that belongs to it."""

import asyncio
import json
import shutil
import ssl
from pathlib import Path
from typing import Self

import httpx
import pytest

from tests.proxy.tls import make
from tests.support.ports import free_port
from tests.support.waiting import until_async

needs_pebble = pytest.mark.skipif(
    not (shutil.which("pebble") and shutil.which("pebble-challtestsrv")),
    reason="needs the package pebble (apt install pebble)",
)


_HONEST = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
"""Else it is slow, and refuses now and then what is right."""


class Pebble:
    """One authority, which finds every name on loopback and asks it at `http_port`."""

    def __init__(self, folder: Path, http_port: int) -> None:
        self._folder, self._http_port = folder, http_port
        self._port, self._management, self._dns = (free_port() for _ in range(3))
        self._processes: list[asyncio.subprocess.Process] = []
        self.ca_file = folder / "pebble-ca.pem"
        """Who vouches for the authority's own web server."""
        self.directory = f"https://localhost:{self._port}/dir"

    def prepare(self) -> Self:
        """Make its files; it does not run yet."""
        made = make("localhost", alternatives=["127.0.0.1"])
        self.ca_file.write_text(made.certificate)
        (self._folder / "pebble-key.pem").write_text(made.key)
        settings = {
            "listenAddress": f"127.0.0.1:{self._port}",
            "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": str(self.ca_file),
            "privateKey": str(self._folder / "pebble-key.pem"),
            "httpPort": self._http_port,
            "tlsPort": 1,
        }
        (self._folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
        return self

    async def start(self) -> None:
        dns = f"127.0.0.1:{self._dns}"
        none = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", "127.0.0.1:0"]
        await self._run("pebble-challtestsrv", "-dns01", dns, "-defaultIPv6", "", *none)
        await self._run("pebble", "-config", "pebble.json", "-dnsserver", dns, "-strict", **_HONEST)

        async def answers() -> bool:
            try:
                await self.root()
            except httpx.HTTPError:
                return False
            return True

        await until_async(answers)

    async def stop(self) -> None:
        for process in self._processes:
            process.terminate()
            await asyncio.wait_for(process.wait(), 20)

    async def root(self) -> ssl.SSLContext:
        """Trusts what it issues."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        async with httpx.AsyncClient(verify=context) as client:
            answer = await client.get(f"https://127.0.0.1:{self._management}/roots/0")
        return ssl.create_default_context(cadata=answer.text)

    async def _run(self, *command: str, **environment: str) -> None:
        with (self._folder / f"{command[0]}.log").open("ab") as log:
            self._processes.append(
                await asyncio.create_subprocess_exec(
                    *command,
                    cwd=self._folder,
                    env=environment,
                    stdout=log,
                    stderr=log,
                    stdin=asyncio.subprocess.DEVNULL,
                )
            )
