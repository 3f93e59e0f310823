"""The OpenSSH client, without the machine's own settings."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import asyncssh


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    stdout: bytes
    stderr: str


class OpenSsh:
    """Runs ssh and its relatives with one key against one port of this machine."""

    def __init__(self, folder: Path, port: int, *, key: asyncssh.SSHKey | None = None) -> None:
        self.folder, self.port = folder, port
        folder.mkdir(parents=True, exist_ok=True)
        self.key = key or asyncssh.generate_private_key("ssh-ed25519")
        self.identity = folder / "id"
        self.identity.touch(mode=0o600)
        self.identity.write_bytes(self.key.export_private_key())

    @property
    def public_line(self) -> str:
        return " ".join(self.key.export_public_key().decode().split()[:2])

    @property
    def options(self) -> list[str]:
        """For ssh, scp and sftp alike; without the port, which each spells differently."""
        settings = {
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "BatchMode": "yes",
            "LogLevel": "ERROR",
            "ConnectTimeout": "10",
        }
        listed = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
        return ["-F", "none", "-i", str(self.identity), *listed]

    def command(self, login: str, *words: str, options: tuple[str, ...] = ()) -> list[str]:
        return ["ssh", *options, *self.options, "-p", str(self.port), f"{login}@127.0.0.1", *words]

    async def run(
        self, login: str, *words: str, stdin: bytes = b"", options: tuple[str, ...] = (), within: float = 30
    ) -> Ran:
        return await execute(*self.command(login, *words, options=options), stdin=stdin, within=within)

    async def start(self, login: str, *words: str, options: tuple[str, ...] = ()) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *self.command(login, *words, options=options), stdin=pipe, stdout=pipe, stderr=pipe, env=_environment()
        )


async def execute(*argv: str, stdin: bytes = b"", within: float = 30) -> Ran:
    """Run a program to its end; TimeoutError, and it is killed, after `within` seconds."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe, env=_environment())
    try:
        async with asyncio.timeout(within):
            stdout, stderr = await process.communicate(stdin)
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    return Ran(process.returncode or 0, stdout, stderr.decode(errors="replace"))


def _environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8", "TERM": "xterm"}
