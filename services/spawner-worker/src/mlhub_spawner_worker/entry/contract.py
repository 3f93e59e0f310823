"""What lies between the attach endpoint and a backend whose workspaces are entered.

Data flows by calls that return at once, and each side can ask the other to pause: nothing is kept without a bound
however slow a client or a program is.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from signal import Signals
from typing import Protocol

from mlhub_shared.errors import Permanent

Size = tuple[int, int, int, int]
"""Of a terminal: columns, rows, and both in pixels; 0 where unknown."""


class EntryError(Permanent):
    """It can't be run, or the port not reached; the text is for whoever wanted in."""


class What(Enum):
    """Kinds of programs."""

    SHELL = auto()
    COMMAND = auto()
    SFTP = auto()


@dataclass(frozen=True)
class Terminal:
    """The terminal that a program is to have."""

    type: str
    size: Size
    modes: Mapping[int, int] = field(default_factory=dict)
    """By the opcodes of RFC 4254, section 8."""


@dataclass(frozen=True)
class Order:
    """What is to be run."""

    what: What
    line: str = ""
    """Of a command; the workspace's shell reads it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the workspace's own."""
    terminal: Terminal | None = None
    agent: Path | None = None
    """Socket on this machine that leads to the client's SSH agent."""


class Client(Protocol):
    """Who a program talks with."""

    def write(self, data: bytes, *, is_error: bool = False) -> None:
        """Take output."""

    def pause_reading(self) -> None:
        """Send no more input for now; what comes nevertheless is not lost."""

    def resume_reading(self) -> None:
        """Send again."""


class Caller(Client, Protocol):
    """Who talks over a connection."""

    def write_eof(self) -> None:
        """The other side says no more, but still listens."""


class Link(Protocol):
    """Our end of what takes input and makes output. It hands nothing over before the first `resume_reading`."""

    def write(self, data: bytes) -> None:
        """Pass on input."""

    def write_eof(self) -> None:
        """The input has ended; output still comes."""

    def pause_reading(self) -> None:
        """Hand over no more output for now."""

    def resume_reading(self) -> None:
        """Hand it over again."""

    def close(self) -> None:
        """Let go of it: a program is hung up, a connection closed. May be called again, and after its end."""

    async def wait(self) -> int:
        """Return once it has ended, or is let go of, and all its output has been handed over.

        How a program ended is its status, negative the signal.
        """


class Child(Link, Protocol):
    """A program that runs inside a workspace, leader of a group of its own."""

    def close_output(self) -> None:
        """Nobody reads what it says any more: it is to find out by its next write."""

    def resize(self, size: Size) -> None:
        """Tell its terminal the new size."""

    def signal(self, number: Signals) -> None:
        """Send a signal to its group, if it still runs."""


class Accept(Protocol):
    """Takes a connection that has come in, for somebody; EntryError if it is gone again."""

    async def __call__(self, caller: Caller) -> Link:
        """Return our end of it."""


Arrived = Callable[[Accept, tuple[str, int]], "asyncio.Task[None]"]
"""Told of each connection that comes in, and where it is from; its work lasts until the connection is over."""


class Listener(Protocol):
    """A port of a workspace that somebody listens on from outside."""

    @property
    def port(self) -> int:
        """Its number."""

    def close(self) -> None:
        """Listen no more; connections that were taken stay."""

    async def wait(self) -> None:
        """Return once it listens no more."""


LOCALHOST = "localhost"
"""Of a connection from inside a workspace: the workspace itself, whichever family its program listens on."""


class Loopback(Protocol):
    """The ports of a workspace that has a loopback of its own."""

    async def connect(self, port: int, caller: Caller, *, host: str = LOCALHOST) -> Link:
        """A connection to one of them, or from inside to another host; EntryError if there is none."""

    async def listen(self, port: int, arrived: Arrived) -> Listener:
        """Listen on one of them, any free one for 0; EntryError if that can't be."""


class Entry(Protocol):
    """The way into one workspace that runs."""

    @property
    def loopback(self) -> Loopback | None:
        """Its own ports. None: its loopback is this machine's."""

    async def run(self, order: Order, client: Client) -> Child:
        """Start a program in it; EntryError if that can't be."""
