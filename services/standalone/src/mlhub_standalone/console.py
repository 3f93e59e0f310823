"""What people read: plain lines, at once, on a terminal or not. In a container's log, the same lines as JSON."""

import json
from contextlib import suppress
from datetime import UTC, datetime

SERVICE = "standalone"


class _Style:
    """How this process writes; decided once, before its first line."""

    as_json = False


def write_json() -> None:
    """From now on, write every line that is not empty as a log entry."""
    _Style.as_json = True


def say(text: str = "") -> None:
    """Show a line; a terminal that has gone is no reason to stop half-way."""
    if not _Style.as_json:
        _print(text)
        return
    for line in filter(None, map(str.strip, text.splitlines())):
        _print(entry(SERVICE, line))


def pass_on(service: str, line: str) -> None:
    """Show a line of a service's log as it is, and one that is no JSON as an entry."""
    _print(line if line.startswith("{") else entry(service, line))


def entry(service: str, text: str) -> str:
    """A line as an entry of a log, in the form of all services."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"timestamp": now, "level": "info", "service": service, "event": text})


def plural(number: int, noun: str) -> str:
    """`1 process`, `2 processes`, `3 workspaces`, `4 entries`."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{number} {noun[:-1]}ies"
    return f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def _print(text: str) -> None:
    with suppress(OSError):
        print(text, flush=True)
