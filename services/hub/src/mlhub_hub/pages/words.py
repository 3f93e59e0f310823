"""Times, sizes and numbers as people say them."""

from datetime import timedelta

_GIB = 1024**3


def duration(span: timedelta) -> str:
    """The two largest units: `2 d 4 h`, `3 h 5 min`, `40 s`."""
    seconds = max(int(span.total_seconds()), 0)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return _pair(days, "d", hours % 24, "h")
    if hours:
        return _pair(hours, "h", minutes % 60, "min")
    if minutes:
        return f"{minutes} min"
    return f"{seconds} s"


def _pair(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit} {small} {small_unit}" if small else f"{large} {large_unit}"


def size(count: int) -> str:
    """Bytes in GiB, or MiB below one: `4 GiB`, `1.5 GiB`, `512 MiB`."""
    if count < _GIB:
        return f"{round(count / 1024**2)} MiB"
    return f"{round(count / _GIB, 1):g} GiB"


def amount(count: int) -> str:
    """Bytes that went through: `340 B`, `1.5 KiB`, `12 MiB`, `3.2 GiB`."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    value = float(count)
    while value >= 1000 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.1f} {units[0]}" if 0 < value < 10 and count >= 1000 else f"{value:.0f} {units[0]}"


def gib(count: int) -> str:
    """Bytes as the number of GiB that a form shows: `4`, `0.5`."""
    return f"{round(count / _GIB, 3):g}"


def cores(count: float) -> str:
    """`1 core`, `0.5 cores`, `4 cores`."""
    return f"{count:g} {'core' if count == 1 else 'cores'}"


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `11th`."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
