"""A workspace's process, started by this worker or by a predecessor, watched through a descriptor of its own."""

import asyncio
import contextlib
import os
import signal
from datetime import timedelta

from mlhub_spawner_worker.backends.process.folders import ProcessState
from mlhub_spawner_worker.backends.process.identity import Identity, open_pidfd, send_group


class Child:
    """One live process; `ended` is done when it is dead, with its exit code, or None where that is not to be had."""

    def __init__(self, state: ProcessState, fd: int) -> None:
        self.state = state
        self.ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._fd = fd
        asyncio.get_running_loop().add_reader(fd, self._gone)

    @classmethod
    def adopt(cls, state: ProcessState) -> "Child | None":
        """Watch the process that this state tells of; None if it is dead."""
        fd = open_pidfd(Identity(state.pid, state.start, state.boot))
        return None if fd is None else cls(state, fd)

    @property
    def is_alive(self) -> bool:
        """It has not been seen to end."""
        return not self.ended.done()

    async def end(self, *, grace: timedelta) -> None:
        """Ask it and its group to go, then make them."""
        if self.is_alive and grace:
            send_group(self.state.pid, signal.SIGTERM)
            await asyncio.wait({self.ended}, timeout=grace.total_seconds())
        if self.is_alive:
            send_group(self.state.pid, signal.SIGKILL)
            await asyncio.wait({self.ended})

    def let_go(self) -> None:
        """Watch no longer; it goes on running."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        self.ended.cancel()

    def _gone(self) -> None:
        # The group first, and only while its dead leader waits to be reaped: afterwards the number may be another's.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.state.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            send_group(self.state.pid, signal.SIGKILL)
        code = reap(self.state.pid)
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        if not self.ended.done():
            self.ended.set_result(code)


def reap(pid: int) -> int | None:
    """The exit code of a dead child; None of what is no child of this worker."""
    try:
        reaped, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        # A predecessor's child: whoever inherited it has reaped it.
        return None
    return os.waitstatus_to_exitcode(status) if reaped == pid else None
