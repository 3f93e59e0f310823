"""`mlhub logs`: what the services have to say, in a form for people."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mlhub_standalone.component import NATS, SERVICES
from mlhub_standalone.console import say
from mlhub_standalone.data_dir import DataDir
from mlhub_standalone.errors import LauncherError
from mlhub_standalone.log_files import LogFile

NAMES = (NATS, *SERVICES)
_LOOK = 0.3


def show(data: DataDir, service: str | None, *, lines: int, follow: bool) -> None:
    """Print the last lines of one service or of all, and go on with what comes if asked to."""
    names = [service] if service else [name for name in NAMES if data.log(name).exists()]
    files = {name: LogFile(data.log(name)) for name in names}
    if not any(file.path.exists() for file in files.values()):
        raise LauncherError(f"there are no logs in {data.log('x').parent}: nothing has been started there")
    width = max(map(len, files)) if len(files) > 1 else 0
    for name, file in files.items():
        for line in file.tail(lines):
            say(_labelled(name, width, readable(line)))
    if follow:
        _follow(files, lambda name, line: say(_labelled(name, width, readable(line))))


def readable(line: str) -> str:
    """A line for people: JSON of a service as `time level event key=value ...`, all else as it is."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict) or "event" not in entry:
        return line
    when, level, event = (str(entry.pop(key, "")) for key in ("timestamp", "level", "event"))
    trace = str(entry.pop("exception", ""))
    entry.pop("service", None)
    rest = " ".join(f"{key}={value}" for key, value in entry.items())
    text = f"{when[11:23]} {level:<7} {event} {rest}".rstrip()
    return f"{text}\n{trace}" if trace else text


def _labelled(name: str, width: int, text: str) -> str:
    return f"{name:<{width}} | {text}" if width else text


def _follow(files: dict[str, LogFile], tell: Callable[[str, str], None]) -> None:
    readers = {name: growing(file.path) for name, file in files.items()}
    while True:
        for name, reader in readers.items():
            for line in next(reader):
                tell(name, line)
        time.sleep(_LOOK)


def growing(path: Path, *, from_start: bool = False) -> Iterator[list[str]]:
    """At each look the lines that have come since the last."""
    position, rest = path.stat().st_size if path.exists() and not from_start else 0, ""
    while True:
        size = path.stat().st_size if path.exists() else 0
        if size < position:
            # Emptied or begun anew.
            position, rest = 0, ""
        if size == position:
            yield []
            continue
        with path.open(encoding="utf-8", errors="replace") as file:
            file.seek(position)
            *complete, rest = (rest + file.read()).split("\n")
            position = file.tell()
        yield complete
