"""Holding up a channel whose client is faster than what it talks with."""

import asyncio

import asyncssh


class Pace:
    """Pauses and resumes the reading of one channel; it starts paused."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes] | asyncssh.SSHTCPChannel[bytes]) -> None:
        self._channel = channel
        self._is_held = True
        # asyncssh resumes reading right after it has started a session.
        asyncio.get_running_loop().call_soon(self._apply)

    def hold(self) -> None:
        """Read no more."""
        self._is_held = True
        self._channel.pause_reading()

    def release(self) -> None:
        """Read on."""
        self._is_held = False
        # Not now: it delivers at once what waits, and a pipe of asyncio, which calls from amid a write, would lose it.
        asyncio.get_running_loop().call_soon(self._apply)

    def _apply(self) -> None:
        if self._is_held:
            self._channel.pause_reading()
        else:
            self._channel.resume_reading()
