"""The connections of a workspace, all carried by one small program that runs in it."""

import asyncio
import contextlib
from collections import deque
from signal import Signals
from typing import Self

import structlog

from mlhub_shared.errors import MLHubError
from mlhub_spawner_worker.backends.inside import script
from mlhub_spawner_worker.backends.inside.link import ExecLink
from mlhub_spawner_worker.backends.inside.place import Place
from mlhub_spawner_worker.entry import Caller, EntryError, carrier

log = structlog.get_logger(__name__)

_IDLE = 60.0
"""Seconds after which a program that carries nothing is ended."""
_MOST = 128
"""Connections at the same time: a worker with little memory keeps a window of each."""
_PATIENCE = carrier.SECONDS_TO_CONNECT + 5
_FAREWELL = 1.0
"""Seconds for the program to end with its input."""
_LONGEST_REASON = 200
_LONGEST_FRAME = carrier.FRAME.size + carrier.WINDOW
_MOST_WAITING = _MOST * (carrier.WINDOW + 8 * 1024)
"""Bytes for a program to read: all that it may have granted, with the heads of the frames."""
_LEFT = 2 * carrier.WINDOW + 1024
"""What may still be counted in frames of a connection that is over here: both directions' windows, and its end."""


class Carrier:
    """The program of one workspace. It is not believed: what it sends beyond what it may ends it."""

    def __init__(self) -> None:
        self._channels: dict[int, Channel] = {}
        self._last = 0
        self._used_at = asyncio.get_running_loop().time()
        self._said = bytearray()
        self._left = 0
        self._is_done = asyncio.Event()
        self._link: ExecLink
        self._work: asyncio.Task[None]
        self.is_open = True
        """False once it takes no more connections."""

    @classmethod
    async def open(cls, place: Place) -> Self:
        """Start the program; EntryError if the image lacks what it takes."""
        opened = cls()
        opened._link = await ExecLink.open(place, script.carrying(), opened)
        opened._work = asyncio.ensure_future(opened._keep(place))
        opened._link.resume_reading()
        return opened

    async def connect(self, host: str, port: int, caller: Caller) -> "Channel":
        """A connection from inside; EntryError if there is none."""
        if len(self._channels) >= _MOST:
            raise EntryError(f"the workspace has {_MOST} connections already, and no more can be carried")
        self._last += 1
        channel = self._channels[self._last] = Channel(self, self._last, caller)
        self.send(self._last, carrier.OPEN, f"{host} {port}".encode())
        try:
            async with asyncio.timeout(_PATIENCE):
                await channel.opened
        except TimeoutError:
            channel.close()
            # It hangs, or is held: another one may do better.
            self._end()
            raise EntryError("the workspace does not answer") from None
        except BaseException:
            channel.close()
            raise
        return channel

    def send(self, number: int, kind: int, text: bytes = b"", *, count: int = 0) -> None:
        """A frame."""
        self._link.write(carrier.FRAME.pack(number, kind, len(text) or count) + text)
        if self._link.waiting > _MOST_WAITING:
            # It grants without reading.
            self._end()

    def forget(self, number: int) -> None:
        """A connection is over."""
        if self._channels.pop(number, None) is not None:
            self._left += _LEFT
        self._used_at = asyncio.get_running_loop().time()

    # As the client of the program

    def write(self, data: bytes, *, is_error: bool = False) -> None:
        """Take frames."""
        if is_error or not self.is_open:
            return
        self._said += data
        at = 0
        while len(self._said) - at >= carrier.FRAME.size:
            number, kind, count = carrier.FRAME.unpack_from(self._said, at)
            end = at + carrier.FRAME.size + (count if kind in carrier.WITH_TEXT else 0)
            may_be = end - at <= _LONGEST_FRAME
            if may_be and end > len(self._said):
                break
            if not may_be or not self._take(number, kind, bytes(self._said[at + carrier.FRAME.size : end]), count):
                self._end()
                return
            at = end
        del self._said[:at]

    def pause_reading(self) -> None:
        """What waits for it is bounded by what it has granted."""

    def resume_reading(self) -> None:
        """Nothing was paused."""

    def _take(self, number: int, kind: int, text: bytes, count: int) -> bool:
        """False if that may not be."""
        channel = self._channels.get(number)
        if channel is None:
            self._left -= max(count, 1)
            return self._left >= 0
        match kind:
            case carrier.OPENED:
                return channel.take_opened()
            case carrier.FAILED:
                reason = "".join(filter(str.isprintable, text.decode(errors="replace")))
                return channel.take_failure(reason[:_LONGEST_REASON])
            case carrier.DATA:
                return channel.take_output(text)
            case carrier.EOF:
                return channel.take_output(None)
            case carrier.GRANT:
                return channel.take_grant(count)
            case carrier.CLOSE:
                channel.take_end()
                return True
        return False

    def _end(self) -> None:
        self.is_open = False
        self._is_done.set()

    async def _keep(self, place: Place) -> None:
        """Until it ends, or nobody has used it for long."""
        ended, done = asyncio.ensure_future(self._link.ended()), asyncio.ensure_future(self._is_done.wait())
        try:
            while not (ended.done() or done.done()):
                left = self._used_at + _IDLE - asyncio.get_running_loop().time()
                if left <= 0 and not self._channels:
                    break
                patience = _IDLE if self._channels else left
                await asyncio.wait([ended, done], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            done.cancel()
            self.is_open = False
            for channel in tuple(self._channels.values()):
                channel.take_end()
            self._link.write_eof()
            await asyncio.wait([ended], timeout=_FAREWELL)
            if not ended.done():
                with contextlib.suppress(MLHubError):
                    await place.do(script.kill(Signals.SIGTERM, self._link.group))
                self._link.let_go()


class Channel:
    """One connection; implements Link."""

    def __init__(self, carried_by: Carrier, number: int, caller: Caller) -> None:
        self._carrier, self._number, self._caller = carried_by, number, caller
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._may_send = carrier.WINDOW
        self._input: deque[bytes | None] = deque()
        """None: its end."""
        self._output: deque[bytes | None] = deque()
        self._to_grant = 0
        self._kept = 0
        """Bytes of output that wait here, or that no more have been granted for."""
        self._is_paused = True
        self._is_holding = False
        """The caller has been asked to pause."""
        self._has_said_all = False
        self._is_over = False
        """The program says no more of it."""
        self._ended = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Pass on input."""
        if not self._is_over:
            self._input.append(data)
            self._pass_input()
            if self._input:
                self._is_holding = True
                self._caller.pause_reading()

    def write_eof(self) -> None:
        """The input has ended."""
        if not self._is_over:
            self._input.append(None)
            self._pass_input()

    def pause_reading(self) -> None:
        """Hand over no more output."""
        self._is_paused = True

    def resume_reading(self) -> None:
        """Hand it over again."""
        self._is_paused = False
        self._pass_output()

    def close(self) -> None:
        """Let go of it."""
        if not self._is_over:
            self._carrier.send(self._number, carrier.CLOSE)
            self._over()
        self._output.clear()
        self._ended.set()
        self.opened.cancel()

    async def wait(self) -> int:
        """Return when it has ended."""
        await self._ended.wait()
        return 0

    # From the program; False if it may not say that

    def take_opened(self) -> bool:
        """It is connected."""
        if self.opened.done():
            return False
        self.opened.set_result(None)
        return True

    def take_failure(self, reason: str) -> bool:
        """It can't be."""
        if self.opened.done():
            return False
        self.opened.set_exception(EntryError(reason))
        self._over()
        return True

    def take_output(self, data: bytes | None) -> bool:
        """None: it says no more."""
        if self._has_said_all or data == b"":
            return False
        self._has_said_all = data is None
        self._kept += len(data or b"")
        self._output.append(data)
        self._pass_output()
        return self._kept <= carrier.WINDOW

    def take_grant(self, count: int) -> bool:
        """So much more input may be sent."""
        self._may_send += count
        if not count or self._may_send > carrier.WINDOW:
            return False
        self._pass_input()
        if not self._input:
            self._hold_no_more()
        return True

    def take_end(self) -> None:
        """It is over; what it has said is still handed over."""
        if not self.opened.done():
            self.opened.set_exception(EntryError("the connection to the workspace is lost"))
        self._over()
        self._pass_output()

    def _over(self) -> None:
        self._is_over = True
        self._input.clear()
        self._carrier.forget(self._number)
        # Nobody reads input any more: take what still comes, or the client's end would never be heard.
        self._hold_no_more()

    def _hold_no_more(self) -> None:
        if self._is_holding:
            self._is_holding = False
            self._caller.resume_reading()

    def _pass_input(self) -> None:
        while self._input and (self._may_send or self._input[0] is None):
            data = self._input.popleft()
            if data is None:
                self._carrier.send(self._number, carrier.EOF)
                continue
            now, later = data[: self._may_send], data[self._may_send :]
            self._may_send -= len(now)
            self._carrier.send(self._number, carrier.DATA, now)
            if later:
                self._input.appendleft(later)

    def _pass_output(self) -> None:
        while self._output and not self._is_paused:
            data = self._output.popleft()
            if data is None:
                self._caller.write_eof()
            else:
                self._caller.write(data)
                self._to_grant += len(data)
        if self._to_grant >= carrier.WINDOW // 4 and not self._is_over:
            self._carrier.send(self._number, carrier.GRANT, count=self._to_grant)
            self._kept, self._to_grant = self._kept - self._to_grant, 0
        if self._is_over and not self._output:
            self._ended.set()
