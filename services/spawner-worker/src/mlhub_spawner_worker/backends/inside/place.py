"""What an engine has to give so that its workspaces can be entered."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class Lost(Exception):
    """A program's streams are lost with whatever has carried them."""


class Said(NamedTuple):
    """A piece of what a program says."""

    data: bytes
    is_error: bool = False


class Streams(Protocol):
    """What an engine carries out of a workspace and into it."""

    async def read(self) -> Said | None:
        """What comes next, taken from the engine no sooner than here; None: no more. Lost if nobody can know."""

    async def write(self, data: bytes) -> None:
        """Pass on input, and return once the engine is ready for more; Lost if nobody takes it."""

    async def end_input(self) -> None:
        """Pass on no more; what is said still comes. Lost if nobody takes it."""

    async def close(self) -> None:
        """Let go of them. May be called again."""


class Exec(Streams, Protocol):
    """A program that an engine has started inside a workspace, leader of a session and a group of its own.

    It may go on when its streams are closed. What goes wrong with the calls of this class is a MLHubError.
    """

    async def resize(self, columns: int, rows: int) -> None:
        """Tell its terminal a new size."""

    async def status(self) -> int | None:
        """How it has ended, a signal as 128 and its number; None while it runs, as far as is known."""

    async def ending(self) -> int | None:
        """The same of one whose streams have ended, a short while awaited; None: they were lost, nobody knows."""


class Place(Protocol):
    """One workspace as its engine sees it. What it can't do is a MLHubError with a sentence for people."""

    async def start(self, command: Sequence[str], environment: Mapping[str, str], *, has_terminal: bool) -> Exec:
        """Start a command as the workspace's user; `environment` is added to the workspace's own."""

    async def do(self, command: Sequence[str]) -> None:
        """Run a short command as the workspace's user; how it ends is not told."""
