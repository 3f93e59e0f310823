"""The time, from one place, so that tests can set it."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Returns the time now, UTC-aware."""


def utc_now() -> datetime:
    """The time now, UTC-aware."""
    return datetime.now(UTC)


def microseconds(when: datetime) -> int:
    """Since 1970, as generations count."""
    return int(when.timestamp() * 1_000_000)
