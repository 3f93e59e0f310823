"""A Docker engine of the test's own, which it may end and start anew: in a network namespace of its own, because two in
one namespace take each other's bridge away."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiodocker
import pytest

from tests.support.docker_engine import have_image, need_engine

_HOLD = "ip link set lo up && exec sleep infinity"


class SecondEngine:
    """Starts and ends one dockerd; its data, its containerd and its network namespace outlive it."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self._folder, self._flags = folder, flags
        self._process: asyncio.subprocess.Process | None = None
        self._others: list[asyncio.subprocess.Process] = []

    @property
    def url(self) -> str:
        """Of its socket."""
        return f"unix://{self._folder}/docker.sock"

    @property
    def namespace(self) -> int:
        """A process that lives in its network namespace for as long as that is there."""
        return self._others[0].pid

    @property
    def _inside(self) -> tuple[str, ...]:
        return ("nsenter", f"--target={self.namespace}", "--net", "--mount", "--")

    async def open(self) -> None:
        """Start what outlives it, and it."""
        containerd = f"{self._folder}/containerd"
        self._others = [await self._run("unshare", "--net", "--mount", "--", "sh", "-c", _HOLD)]
        # Until the new namespaces are there, the old ones would be entered.
        await asyncio.sleep(0.5)
        within = await self._run(
            *(*self._inside, "containerd", "--address", f"{containerd}.sock"),
            *("--root", f"{containerd}/root", "--state", f"{containerd}/state"),
        )
        self._others.append(within)
        async with asyncio.timeout(30):
            while not Path(f"{containerd}.sock").exists():  # noqa: ASYNC110, ASYNC240
                await asyncio.sleep(0.05)
        await self.start()

    async def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = await self._run(
            *(*self._inside, "dockerd", "--host", self.url),
            *("--data-root", f"{self._folder}/data", "--exec-root", f"{self._folder}/run"),
            *("--containerd", f"{self._folder}/containerd.sock", "--pidfile", f"{self._folder}/pid", *self._flags),
        )
        async with asyncio.timeout(60):
            while not await self._answers():
                assert self._process.returncode is None, (self._folder / "log").read_text()[-2000:]
                await asyncio.sleep(0.1)

    async def _run(self, *command: str) -> asyncio.subprocess.Process:
        with (self._folder / "log").open("ab") as log:
            return await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)

    async def end(self, number: int = signal.SIGTERM) -> None:
        """End it, politely or not."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
            await asyncio.wait_for(self._process.wait(), 60)

    async def _answers(self) -> bool:
        async with aiodocker.Docker(self.url) as docker:
            try:
                await docker.version()
            except aiodocker.DockerError:
                return False
            return True

    async def aclose(self) -> None:
        """Have nothing run any more."""
        with contextlib.suppress(AssertionError, TimeoutError):
            await self._clean()
        await self.end()
        for process in reversed(self._others):
            process.terminate()
            await asyncio.wait_for(process.wait(), 30)

    async def _clean(self) -> None:
        if not await self._answers():
            await self.end(signal.SIGKILL)
            await self.start()
        async with aiodocker.Docker(self.url) as docker:
            for container in await docker.containers.list(all=True):
                with contextlib.suppress(aiodocker.DockerError):
                    await container.delete(force=True)


@contextlib.asynccontextmanager
async def second_engine(*flags: str) -> AsyncIterator[SecondEngine]:
    """An engine of its own with the tests' image; nothing is left of it."""
    need_engine()
    missing = [tool for tool in ("dockerd", "containerd", "unshare", "nsenter", "ip") if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"a second Docker engine needs {', '.join(missing) or 'root'}")
    folder = Path(tempfile.mkdtemp(prefix="mlhub-engine-"))
    engine = SecondEngine(folder, *flags)
    try:
        await engine.open()
        async with aiodocker.Docker(engine.url) as docker:
            await have_image(docker)
        yield engine
    finally:
        await engine.aclose()
        shutil.rmtree(folder, ignore_errors=True)
