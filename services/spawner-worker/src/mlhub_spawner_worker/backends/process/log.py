"""A workspace's output: a file that the workspace itself appends to, with or without a worker."""

import os
from pathlib import Path

TAIL_BYTES = 4000
"""Of a log that a record carries."""


def tail(path: Path, size: int = TAIL_BYTES) -> str:
    """The last lines, at most `size` bytes; empty if there is no log."""
    try:
        with path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(0, end - size))
            data = log.read(size)
    except OSError:
        return ""
    if end > size:
        data = data.partition(b"\n")[2] or data
    return data.decode(errors="replace")


def trim(path: Path, most: int) -> bool:
    """Keep the newer half of a log that has grown beyond `most` bytes; whether it had.

    In place, because the workspace holds the file open; it appends, so that it goes on at the new end. What it writes
    in between is lost.
    """
    try:
        if path.stat().st_size <= most:
            return False
        kept = tail(path, most // 2).encode()
        with path.open("r+b") as log:
            log.truncate(0)
        with path.open("ab") as log:
            log.write(kept)
    except OSError:
        return False
    return True
