"""What people read: plain lines, at once, on a terminal or not."""

from contextlib import suppress


def say(text: str = "") -> None:
    """Show a line; a terminal that has gone is no reason to stop half-way."""
    with suppress(OSError):
        print(text, flush=True)


def plural(number: int, noun: str) -> str:
    """`1 process`, `2 processes`, `3 workspaces`."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{ending}"
