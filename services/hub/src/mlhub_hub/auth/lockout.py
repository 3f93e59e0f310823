"""When to refuse to look at a password at all: pure decisions about failures in a row."""

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Limits:
    """How many failures are forgiven, and what follows."""

    allowed: int
    """Failures in a row before the first lock."""
    first_lock: timedelta = timedelta(seconds=30)
    """Doubles with every further failure."""
    longest_lock: timedelta = timedelta(hours=1)
    forget_after: timedelta = timedelta(hours=6)
    """Without a further failure."""


@dataclass(frozen=True)
class Failures:
    """Failures in a row."""

    count: int
    last_at: datetime
    locked_until: datetime | None = None


def remaining_lock(failures: Failures | None, now: datetime) -> timedelta:
    """How long to wait still; zero if not locked."""
    if failures is None or failures.locked_until is None:
        return timedelta(0)
    return max(failures.locked_until - now, timedelta(0))


def after_failure(failures: Failures | None, now: datetime, limits: Limits) -> Failures:
    """Count one more, and lock if it was one too many."""
    known = 0 if failures is None or is_forgotten(failures, now, limits) else failures.count
    count = known + 1
    if count < limits.allowed:
        return Failures(count, now)
    doublings = min(count - limits.allowed, 20)
    return Failures(count, now, now + min(limits.first_lock * 2**doublings, limits.longest_lock))


def is_forgotten(failures: Failures, now: datetime, limits: Limits) -> bool:
    """Long enough ago to start anew."""
    return now - failures.last_at > limits.forget_after


def network_of(address: str) -> str:
    """What counts as one address: a whole /64 of IPv6 belongs to one customer."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped) if ip.ipv4_mapped else str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)
