"""A process that may be somebody else's child: its death is told, its number is never mistaken."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self


class Process:
    """Started here or found; ended through a descriptor that can mean no other process."""

    def __init__(self, pid: int, descriptor: int, child: "subprocess.Popen[bytes] | None" = None) -> None:
        self.pid = pid
        self.ended = asyncio.Event()
        self._descriptor, self._child = descriptor, child
        asyncio.get_running_loop().add_reader(descriptor, self._gone)

    @classmethod
    def start(cls, command: Sequence[str | Path], *, folder: Path, log: Path) -> Self:
        """Start a program that outlives this one; raises OSError.

        Its output goes to a file, since a pipe would end with us, and it gets nothing of our environment.
        """
        log.unlink(missing_ok=True)  # a former process may still write into it
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                env={},
                start_new_session=True,
            )
        return cls(child.pid, os.pidfd_open(child.pid), child)

    @classmethod
    def find(cls, pid: int) -> Self | None:
        """A running process; None if there is none. Check who it is after this, not before."""
        try:
            return cls(pid, os.pidfd_open(pid))
        except OSError:
            return None

    @classmethod
    def find_all(cls, *, folder: Path, argument: str) -> list[Self]:
        """Every process that works in this folder and has this argument."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and _is(entry, folder, argument):
                process = cls.find(int(entry.name))
                if process is not None and _is(entry, folder, argument):
                    found.append(process)
                elif process is not None:
                    process.release()
        return found

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if not self.ended.is_set():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    async def wait(self, within: float) -> bool:
        """Whether it ends within so many seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), within)
        return self.ended.is_set()

    async def end(self, grace: float) -> None:
        """Let HAProxy finish what is in flight for `grace` seconds, then end it, whatever is open."""
        for number, within in ((signal.SIGUSR1, grace), (signal.SIGTERM, 2.0), (signal.SIGKILL, 2.0)):
            self.send(number)
            if await self.wait(within):
                return

    def release(self) -> None:
        """Stop following it; it runs on."""
        if not self.ended.is_set():
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self.ended.set()
            if self._child is not None:
                self._child.returncode = 0  # or it would complain that nobody waited for it

    def _gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        if self._child is not None:
            self._child.wait()  # it has ended: this only collects it
        self.ended.set()


def _is(entry: Path, folder: Path, argument: str) -> bool:
    try:
        words = (entry / "cmdline").read_bytes().split(b"\0")
        return argument.encode() in words and os.path.samefile(entry / "cwd", folder)
    except OSError:
        return False
