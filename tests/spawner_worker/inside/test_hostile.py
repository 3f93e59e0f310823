"""What is entered may be anything that people have put in its place, and says what it likes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import pytest

from mlhub_spawner_worker.backends.inside import Said, ports
from mlhub_spawner_worker.backends.inside.carrier import Carrier, Channel
from mlhub_spawner_worker.backends.inside.connection import InsideConnection
from mlhub_spawner_worker.backends.inside.loopback import InsideListener
from mlhub_spawner_worker.entry import Accept, EntryError, carrier
from tests.support.waiting import until

MOST = 128
"""Connections at the same time."""


class Stream:
    """A program that says what the test has it say, and reads nothing."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[Said | None] = asyncio.Queue()

    def say(self, data: bytes, *, is_error: bool = False) -> None:
        self.said.put_nowait(Said(data, is_error))

    async def read(self) -> Said | None:
        await asyncio.sleep(0)
        return await self.said.get()

    async def write(self, data: bytes) -> None:
        await asyncio.Event().wait()

    async def end_input(self) -> None:
        pass

    async def resize(self, columns: int, rows: int) -> None:
        pass

    async def status(self) -> int | None:
        return None

    async def ending(self) -> int | None:
        return None

    async def close(self) -> None:
        pass


class Hostile:
    """A workspace in which everything is this one program."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def start(self, command: Sequence[str], environment: Mapping[str, str], *, has_terminal: bool) -> Stream:
        return self._stream

    async def do(self, command: Sequence[str]) -> None:
        pass


class Silent:
    """A caller that says nothing."""

    def write(self, data: bytes, *, is_error: bool = False) -> None:
        pass

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def frame(number: int, kind: int, count: int = 0, text: bytes = b"") -> bytes:
    return carrier.FRAME.pack(number, kind, len(text) or count) + text


OPENED = frame(1, carrier.OPENED)


@pytest.fixture
async def stream() -> AsyncIterator[Stream]:
    stream = Stream()
    yield stream
    stream.said.put_nowait(None)


async def carried(stream: Stream) -> tuple[Carrier, Channel]:
    """A connection whose program is asked for no output."""
    stream.say(b"\x1e7\n")
    opened = await Carrier.open(Hostile(stream))
    stream.say(OPENED)
    return opened, await opened.connect("localhost", 4000, Silent())


async def test_what_never_begins_is_not_listened_to_for_long(stream: Stream) -> None:
    for _ in range(100):
        stream.say(bytes(8192), is_error=True)
    with pytest.raises(EntryError):
        await InsideConnection.begin(Hostile(stream), [], Silent())
    assert stream.said.qsize() > 90


async def test_a_carrier_that_grants_without_reading_is_ended(stream: Stream) -> None:
    _, link = await carried(stream)
    over = asyncio.ensure_future(link.wait())
    passed = 0
    while not over.done() and passed < 2 * MOST * carrier.WINDOW:
        link.write(bytes(carrier.WINDOW))
        passed += carrier.WINDOW
        stream.say(frame(1, carrier.GRANT, carrier.WINDOW))
        for _ in range(5):
            await asyncio.sleep(0)
    await asyncio.wait_for(over, 20)
    assert passed < 2 * MOST * carrier.WINDOW


@pytest.mark.parametrize(
    "said",
    [
        frame(1, carrier.DATA),
        frame(1, carrier.EOF) * 2,
        frame(1, carrier.EOF) + frame(1, carrier.DATA, text=b"more"),
        frame(1, carrier.GRANT, 1),
        frame(1, carrier.GRANT),
        OPENED,
        frame(1, carrier.FAILED, text=b"no"),
        frame(1, 99),
        frame(2, carrier.CLOSE),
        frame(2, carrier.DATA, text=b"more"),
    ],
    ids=[
        *("empty", "two-ends", "after-its-end", "unasked-grant", "grant-of-nothing"),
        *("opened-twice", "failed-late", "unknown-kind", "end-of-another", "data-of-another"),
    ],
)
async def test_a_carrier_that_says_what_makes_no_sense_is_ended(stream: Stream, said: bytes) -> None:
    opened, link = await carried(stream)
    stream.say(said)
    await until(lambda: not opened.is_open)
    link.resume_reading()
    await asyncio.wait_for(link.wait(), 20)


async def test_a_carrier_that_says_too_much_at_once_is_ended(stream: Stream) -> None:
    stream.say(b"\x1e7\n" + OPENED + frame(1, carrier.DATA, 2**31))
    opened = await Carrier.open(Hostile(stream))
    link = await opened.connect("localhost", 4000, Silent())
    await asyncio.wait_for(link.wait(), 20)


async def test_what_was_on_its_way_to_one_that_is_closed_is_passed_over_and_no_more(stream: Stream) -> None:
    opened, link = await carried(stream)
    link.write(bytes(carrier.WINDOW))
    link.close()
    half = frame(1, carrier.DATA, text=bytes(carrier.WINDOW // 2))
    stream.say(half * 2 + frame(1, carrier.GRANT, 1) * 1000 + frame(1, carrier.EOF) + frame(1, carrier.CLOSE))
    stream.say(frame(2, carrier.OPENED))
    other = await opened.connect("localhost", 4000, Silent())
    for _ in range(40):
        stream.say(frame(1, carrier.CLOSE) * 7000)
    await asyncio.wait_for(other.wait(), 20)


async def test_who_counts_without_end_what_it_has_said_is_let_go(stream: Stream) -> None:
    stream.say(b"\x1e7\n")
    link = await InsideConnection.begin(Hostile(stream), [], Silent())
    link.resume_reading()
    stream.say(b"1" * 100, is_error=True)
    await asyncio.wait_for(link.wait(), 20)


@pytest.mark.parametrize(
    "line",
    [b"1" * 5000, b"127.0.0.1 port\n", b"127.0.0.1 70000\n", b"127.0.0.1 -1\n", b"\n"],
    ids=["endless", "word", "large", "negative", "empty"],
)
async def test_a_listener_that_says_what_makes_no_sense_is_let_go(stream: Stream, line: bytes) -> None:
    calls = Calls()
    listener = await calls.listen(stream)
    stream.say(line)
    await asyncio.wait_for(listener.wait(), 20)
    assert not calls.open


async def test_a_listener_has_no_more_than_so_many_connections_at_once(stream: Stream) -> None:
    calls = Calls()
    await calls.listen(stream)
    stream.say(b"127.0.0.1 4001\n" * 10_000)
    await until(lambda: stream.said.empty() and bool(calls.open))
    assert len(calls.open) == MOST
    calls.open.pop().set()
    await asyncio.sleep(0.01)
    stream.say(b"127.0.0.1 4001\n" * 10)
    await until(lambda: stream.said.empty() and len(calls.open) == MOST)


class Calls:
    """Takes all connections, and keeps them."""

    def __init__(self) -> None:
        self.open: list[asyncio.Event] = []

    async def listen(self, stream: Stream) -> InsideListener:
        stream.say(b"\x1e7\n4000\n")
        return await InsideListener.open(Hostile(stream), 4000, self._arrived)

    def _arrived(self, accept: Accept, origin: tuple[str, int]) -> asyncio.Task[None]:
        self.open.append(event := asyncio.Event())
        return asyncio.ensure_future(_kept(event.wait))


async def _kept(wait: Callable[[], Any]) -> None:
    await wait()


async def test_a_list_of_ports_that_makes_no_sense_has_none(stream: Stream) -> None:
    many = b"9" * 5000
    table = b" 0: 0100007F:%b 00000000:0000 0A 0:0 0:0 0 0 0 7\n"
    stream.say(
        b"\x1e7\nrange %b\n/proc/%b/fd:\nl socket:[%b]\n==> /proc/%b/cmdline <==\nx\n" % (many, many, many, many)
    )
    stream.say(table % b"0FFFFF" + table % b"-1" + table % b"0FA0")
    stream.said.put_nowait(None)
    found = await ports.listening(Hostile(stream), ports.Surroundings(8080, None))
    assert [one.port for one in found] == [4000]
