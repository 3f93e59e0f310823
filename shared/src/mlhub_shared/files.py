"""Files that are made once and kept."""

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path


def make_once(path: Path, content: Callable[[], bytes]) -> None:
    """Make a file that nobody else may read, if there is none; processes that do so together come to have the same."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(fresh)
    finally:
        fresh.unlink(missing_ok=True)
