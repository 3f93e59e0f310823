"""When something happened in another process, by the clock that all processes share."""

import os
import time
from pathlib import Path


class Stamps:
    """A file to which processes append what happened to whom, and when."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, what: str) -> None:
        """Write down the time; safe from several processes."""
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, f"{what} {time.time_ns()}\n".encode())
        finally:
            os.close(file)

    def read(self) -> dict[str, float]:
        """The last time of each, in seconds."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return {what: int(when) / 1e9 for what, when in (line.rsplit(" ", 1) for line in lines)}

    def clear(self) -> None:
        """Forget all."""
        self.path.unlink(missing_ok=True)
