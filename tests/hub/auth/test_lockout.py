"""When a password is not even looked at."""

from datetime import UTC, datetime, timedelta

import pytest

from mlhub_hub.auth.lockout import Failures, Limits, after_failure, network_of, remaining_lock

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LIMITS = Limits(allowed=3, first_lock=timedelta(seconds=30), longest_lock=timedelta(minutes=10))


def fail(times: int, *, known: Failures | None = None, at: datetime = NOW) -> Failures:
    for _ in range(times):
        known = after_failure(known, at, LIMITS)
    assert known is not None
    return known


def test_the_failure_that_is_one_too_many_locks() -> None:
    assert remaining_lock(fail(2), NOW) == timedelta(0)
    assert remaining_lock(fail(3), NOW) == timedelta(seconds=30)


def test_each_further_failure_doubles_the_lock_up_to_the_longest() -> None:
    assert [remaining_lock(fail(n), NOW).total_seconds() for n in (4, 5, 6)] == [60, 120, 240]
    assert remaining_lock(fail(100), NOW) == LIMITS.longest_lock


def test_a_lock_ends_but_the_count_does_not() -> None:
    locked = fail(3)
    later = NOW + timedelta(seconds=31)
    assert remaining_lock(locked, later) == timedelta(0)
    assert remaining_lock(fail(1, known=locked, at=later), later) == timedelta(seconds=60)


def test_failures_of_long_ago_are_forgotten() -> None:
    later = NOW + LIMITS.forget_after + timedelta(seconds=1)
    assert fail(1, known=fail(50), at=later) == Failures(1, later)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8::1", "2001:db8::ffff"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
    ],
)
def test_one_customer_is_one_address(one: str, other: str) -> None:
    assert network_of(one) == network_of(other)


def test_different_customers_are_different_addresses() -> None:
    assert len({network_of(a) for a in ("192.0.2.7", "192.0.2.8", "2001:db8::1", "2001:db8:0:1::1")}) == 4
