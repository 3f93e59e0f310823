"""What runs in a container: a real program, or only the word of a script."""

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Outcome:
    """How it ended."""

    code: int
    """128 and the signal's number where a signal ended it."""
    reason: str = ""
    """Empty: as the code says."""
    message: str = ""
    signal: int = 0


class Running(Protocol):
    """A container's main program."""

    async def wait(self) -> Outcome:
        """Until it has ended."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self, outcome: Outcome | None = None) -> None:
        """End it; the outcome as told, or as signal 9 makes it."""


class Program:
    """A process of this machine that writes into a file."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._told: Outcome | None = None

    @classmethod
    async def start(cls, argv: list[str], env: dict[str, str], cwd: Path, log: Path) -> "Program":
        """Start it in a session of its own. OSError: it can't be."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                *argv,
                env=env,
                cwd=cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        return cls(process)

    async def wait(self) -> Outcome:
        code = await self._process.wait()
        return self._told or outcome_of(code)

    def terminate(self) -> None:
        with suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self, outcome: Outcome | None = None) -> None:
        if self._process.returncode is None:
            self._told = outcome
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


class Pretence:
    """Nothing runs; it ends when it is told to."""

    def __init__(self, stop_takes: float = 0.0) -> None:
        self._ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._stop_takes = stop_takes

    async def wait(self) -> Outcome:
        return await asyncio.shield(self._ended)

    def terminate(self) -> None:
        asyncio.get_running_loop().call_later(self._stop_takes, self.kill, Outcome(0))

    def kill(self, outcome: Outcome | None = None) -> None:
        if not self._ended.done():
            self._ended.set_result(outcome or outcome_of(-signal.SIGKILL))


def outcome_of(code: int) -> Outcome:
    """From a process's return code."""
    return Outcome(code) if code >= 0 else Outcome(128 - code)
