"""Child processes: started, waited for, weighed, and ended by their ids."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import aiohttp

_BASE = {
    # The interpreter's folder comes first: it is where the environment's own tools lie.
    "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}",
    "PYTHONPATH": str(Path(__file__).parents[2]),
    "HOME": os.environ.get("HOME", "/"),
    "LANG": "C.UTF-8",
}
"""All of the person's environment that a child gets."""

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def python(*arguments: str) -> list[str]:
    """A command for the interpreter that runs the bench."""
    return [sys.executable, *arguments]


class Child:
    """A process with its own log and environment; leave its context and it is gone, with all its children."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        self._command, self._folder = command, folder
        self._env = _BASE | dict(env or {})
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self.name} does not run")
        return self._process.pid

    async def start(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                cwd=self._folder,
                start_new_session=True,
            )
        return self

    async def answers(self, url: str, *, within: float = 60, below: int = 400) -> None:
        """Wait until a URL answers with a status below this; RuntimeError with the log if it never does."""

        async def ask() -> bool:
            async with session.get(url, ssl=False) as response:
                return response.status < below

        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            await self.until(ask, within=within)

    async def until(self, condition: Callable[[], Awaitable[bool]], *, within: float = 60) -> None:
        """Wait until the condition holds; RuntimeError with the log if it never does, or if the process ends."""
        try:
            async with asyncio.timeout(within):
                while not await self._holds(condition):  # noqa: ASYNC110  (what is waited for is another process)
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise RuntimeError(f"{self.name} is not there after {within:g} s:\n{self._tail()}") from None

    async def until_ended(self, *, within: float) -> None:
        """Wait until the process has done what it is for; RuntimeError with the log if it has not."""
        if self._process is None:
            raise RuntimeError(f"{self.name} does not run")
        async with asyncio.timeout(within):
            if await self._process.wait() != 0:
                raise RuntimeError(f"{self.name} failed:\n{self._tail()}")

    async def end(self, number: signal.Signals = signal.SIGTERM, *, within: float = 15) -> None:
        """Send a signal, wait, then kill whatever is left of the process and its children."""
        process, self._process = self._process, None
        if process is None:
            return
        family = tree(process.pid)
        if process.returncode is None:
            process.send_signal(number)
            try:
                async with asyncio.timeout(within):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        for pid, born in family.items():
            if pid != process.pid and _born(pid) == born:
                os.kill(pid, signal.SIGKILL)

    def cpu_seconds(self) -> float:
        """CPU time that the process and its children have used."""
        return sum(_cpu_seconds(pid) for pid in tree(self.pid))

    def memory_bytes(self) -> int:
        """Resident memory of the process alone."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE

    def proportional_memory_bytes(self) -> int:
        """Memory of the process alone; of what it shares with others, its part."""
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))

    def peak_memory_bytes(self) -> int:
        """The most of it that the process has ever had."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

    async def __aenter__(self) -> Self:
        return self if self._process else await self.start()

    async def __aexit__(self, *error: object) -> None:
        await self.end()

    async def _holds(self, condition: Callable[[], Awaitable[bool]]) -> bool:
        if self._process is None or self._process.returncode is not None:
            raise RuntimeError(f"{self.name} has ended:\n{self._tail()}")
        try:
            return await condition()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


def tree(pid: int) -> dict[int, str]:
    """A process and all below it, each with the time it was born."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(folder.name))
        if fields:
            parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found, waiting = {}, [pid]
    while waiting:
        one = waiting.pop()
        found[one] = _born(one)
        waiting += parents.get(one, [])
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, which may hold anything; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _born(pid: int) -> str:
    fields = _stat(pid)
    return fields[19] if fields else ""


def _cpu_seconds(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0
