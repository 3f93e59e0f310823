"""One pod of a service, as a process of this machine."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import aiohttp

from tests.support.cluster_render import Place
from tests.support.nats_server import nats_server_binary

_PROGRAMS = {"nats-server": nats_server_binary()}
_EVERY = 0.1
"""Seconds between two questions whether it is ready."""


def working_in(folder: Path) -> list[int]:
    """The processes whose working directory lies there."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if link.readlink().is_relative_to(folder.resolve()):
                found.append(int(link.parent.name))
    return found


class ServicePod:
    """Runs what the container of a manifest runs, with all that the manifest gives it."""

    def __init__(self, place: Place, more: Mapping[str, str]) -> None:
        """`more`: variables that stand for what a process of this machine lacks, beside the manifest's."""
        self.place, self._more = place, more
        self.name, self.address = place.name, place.address
        self.service = place.workload.name
        self.takes_requests = False
        """Whether Services send anybody here."""
        self._log = place.deployed.folder / "logs" / f"{place.name}.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> Self:
        """Start it, without waiting."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = self.place.command() or ["python", "-m", f"mlhub_{self.service.replace('-', '_')}"]
        program = {"python": sys.executable, **_PROGRAMS}[command[0]]
        here = {"PATH": os.environ["PATH"], "HOME": str(self.place.folder), "LANG": "C.UTF-8"}
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                program,
                *command[1:],
                env={**here, **self.place.environment(), **self._more},
                cwd=self.place.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    async def ready(self, *, within: float = 60) -> Self:
        """Wait until its probes have said so, the one of its start first."""
        try:
            async with asyncio.timeout(within), aiohttp.ClientSession() as session:
                for probe in ("startupProbe", "readinessProbe"):
                    while not await self._answers(session, *self.place.probe(probe)):
                        assert self.is_alive, f"{self.name} has ended:\n{self.log()}"
                        await asyncio.sleep(_EVERY)
        except TimeoutError:
            raise AssertionError(f"{self.name} is not ready:\n{self.log()}") from None
        self.takes_requests = True
        return self

    async def retire(self) -> None:
        """Delete it as Kubernetes does: nobody is sent there, then TERM; fails where it is not gone in time."""
        self.takes_requests = False
        process = self._process
        assert process is not None
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        grace = self.place.workload.pod["terminationGracePeriodSeconds"]
        try:
            await asyncio.wait_for(process.wait(), grace)
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"{self.name} does not end within {grace} s:\n{self.log()}") from None

    async def kill(self) -> None:
        """kill -9 of it and of all that it has started."""
        self.takes_requests = False
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            # HAProxy leads a session of its own, which its agent's end leaves alone; that of a pod does not.
            for pid in working_in(self.place.folder):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def code(self) -> int | None:
        """How it ended."""
        return self._process.returncode if self._process is not None else None

    def log(self, lines: int = 40) -> str:
        """The last of what it has said."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    async def _answers(self, session: aiohttp.ClientSession, port: int, path: str | None) -> bool:
        try:
            if path is None:
                _, writer = await asyncio.open_connection(self.address, port)
                writer.close()
                await writer.wait_closed()
                return True
            async with session.get(
                f"http://{self.address}:{port}{path}", timeout=aiohttp.ClientTimeout(total=5)
            ) as answer:
                return answer.status < 400
        except (OSError, aiohttp.ClientError, TimeoutError):
            return False
