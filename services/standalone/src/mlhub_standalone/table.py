"""Columns of text, readable on a terminal and in a file."""

from collections.abc import Sequence


def render(head: Sequence[str], rows: Sequence[Sequence[str]], *, indent: str = "  ") -> str:
    """Rows under a head, each column as wide as its widest entry."""
    lines = [[*head], *([*row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        (indent + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True))).rstrip()
        for line in lines
    )


def duration(seconds: float) -> str:
    """A span of time, to a sensible degree: `0.4 s`, `12 s`, `3 min`, `5 h`, `2 d`."""
    for limit, unit, text in (
        (10, 1, "{:.1f} s"),
        (120, 1, "{:.0f} s"),
        (7200, 60, "{:.0f} min"),
        (172800, 3600, "{:.0f} h"),
    ):
        if seconds < limit:
            return text.format(seconds / unit)
    return f"{seconds / 86400:.0f} d"
