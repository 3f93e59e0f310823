"""One log file per component: begun anew at each start, never without bound, readable while it grows."""

import shutil
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 20 * 1024 * 1024
"""A log that has grown beyond it moves on to `.1`; with that one, at most twice as much is kept."""


class LogFile:
    """The log of one component. The process writes it itself, so that it can outlive the launcher."""

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        self.path, self._most_bytes = path, most_bytes

    @property
    def previous(self) -> Path:
        """What was logged before this file was begun."""
        return self.path.with_name(self.path.name + ".1")

    def begin(self) -> None:
        """Put what an earlier start logged aside."""
        if self.path.exists():
            self.path.replace(self.previous)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file to hand to a process as its output."""
        # Appending: after `bound` has emptied the file, the process goes on at its beginning.
        descriptor = self.path.open("ab")
        self.path.chmod(0o600)
        with descriptor:
            yield descriptor

    def bound(self) -> None:
        """Move the content on to `.1` if it has become too much."""
        if self.path.exists() and self.path.stat().st_size > self._most_bytes:
            shutil.copyfile(self.path, self.previous)
            with self.path.open("r+b") as file:
                file.truncate(0)

    def tail(self, lines: int) -> list[str]:
        """The last lines."""
        if not self.path.exists():
            return []
        with self.path.open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, maxlen=lines)]
