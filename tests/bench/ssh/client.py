"""The OpenSSH client with a configuration of its own."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh

from tests.bench.bench import NotAvailableError
from tests.bench.ssh.keys import public_line, write_key

_PIPE, _NULL = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
_PATIENCE = 120
_COMMON = {
    "HostName": "127.0.0.1",
    "IdentitiesOnly": "yes",
    "StrictHostKeyChecking": "accept-new",
    "BatchMode": "yes",
    "LogLevel": "ERROR",
    "ConnectTimeout": "20",
}


class SshClient:
    """Runs ssh with one key; hosts are added to its configuration by name."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("ssh") is None:
            raise NotAvailableError("there is no ssh on PATH")
        folder.mkdir(parents=True)
        self._folder, self._config = folder, folder / "config"
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        write_key(folder / "id", self.key)
        self.public_line = public_line(self.key)

    def add(self, name: str, *, port: int, user: str, options: Mapping[str, str] | None = None) -> None:
        """A host of this machine."""
        files = {"IdentityFile": self._folder / "id", "UserKnownHostsFile": self._folder / "known_hosts"}
        settings = {"Port": port, "User": user} | dict(options or {}) | _COMMON | files
        lines = [f"Host {name}", *(f"  {key} {value}" for key, value in settings.items())]
        with self._config.open("a") as config:
            config.write("\n".join(lines) + "\n")

    def command(self, host: str, *words: str) -> list[str]:
        """The command line; words that begin with a dash are options."""
        options = [word for word in words if word.startswith("-")]
        return ["ssh", "-F", str(self._config), *options, host, *words[len(options) :]]

    async def seconds(self, host: str, *words: str) -> float:
        """From ssh's start to its end; RuntimeError if it failed."""
        started = time.monotonic()
        async with self.running(host, *words, stdin=_NULL, stdout=_NULL) as process:
            await self._succeeded(process)
            return time.monotonic() - started

    async def seconds_of_transfer(self, host: str, line: str, source: Path | None = None) -> float:
        """From the begin of a command to ssh's end, without the login; `source` is what it gets to read."""
        with (source or Path(os.devnull)).open("rb") as file:
            async with self.running(host, f"echo >&2; {line}", stdin=file.fileno(), stdout=_NULL) as process:
                assert process.stderr is not None
                if await asyncio.wait_for(process.stderr.readline(), _PATIENCE) != b"\n":
                    await self._succeeded(process)
                started = time.monotonic()
                await self._succeeded(process)
                return time.monotonic() - started

    @asynccontextmanager
    async def running(
        self, host: str, *words: str, stdin: int = _PIPE, stdout: int = _PIPE
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """A client that runs; it is killed at the end if it has not ended."""
        process = await asyncio.create_subprocess_exec(
            *self.command(host, *words), stdin=stdin, stdout=stdout, stderr=_PIPE, start_new_session=True
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def _succeeded(self, process: asyncio.subprocess.Process) -> None:
        async with asyncio.timeout(_PATIENCE):
            _, errors = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"ssh ended with {process.returncode}: {errors.decode(errors='replace')[-500:]}")


def pipes(process: asyncio.subprocess.Process) -> tuple[asyncio.StreamWriter, asyncio.StreamReader]:
    """Input and output of a client that runs with both as pipes."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the client was not started with pipes")
    return process.stdin, process.stdout
