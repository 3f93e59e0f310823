"""The arithmetic behind the figures."""

import asyncio

import pytest

from tests.bench.report import Figure, Report, at_least, at_most
from tests.bench.sampling import at_once, interleave, percentile, rotate


async def test_contenders_take_turns() -> None:
    order = []

    async def turn(contender: str) -> int:
        order.append(contender)
        return len(order)

    assert await interleave(2, {"a": "A", "b": "B"}, turn) == {"a": [1, 3], "b": [2, 4]}
    assert order == ["A", "B", "A", "B"]


async def test_nobody_is_always_first_and_the_warm_up_does_not_count() -> None:
    order = []

    async def turn(contender: str) -> int:
        order.append(contender)
        return len(order)

    assert await rotate(2, {"a": "A", "b": "B", "c": "C"}, turn) == {"a": [6, 8], "b": [4, 9], "c": [5, 7]}
    assert order == ["A", "B", "C", "B", "C", "A", "C", "A", "B"]


async def test_no_more_than_the_limit_work_at_once() -> None:
    working, most = 0, 0

    async def work(item: int) -> int:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await asyncio.sleep(0)
        working -= 1
        return item

    assert sorted(await at_once(3, range(10), work)) == list(range(10))
    assert most == 3


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100)])
def test_a_percentile_is_a_value_that_was_seen(share: float, value: int) -> None:
    assert percentile([*range(100, 0, -1)], share) == value


def test_ratios_are_taken_pair_by_pair() -> None:
    report = Report({})
    report.versus("m", "ours / theirs", [10, 1, 30], [10, 2, 10], at_least(1))
    assert report.figures[0].values == [1, 0.5, 3]
    assert report.figures[0].median == 1


@pytest.mark.parametrize(
    ("values", "reached"),
    [((1, 2, 3), (True, True)), ((1, 9, 9), (False, True)), ((1, 1, 9), (True, False))],
)
def test_a_goal_is_for_the_median(values: tuple[float, ...], reached: tuple[bool, bool]) -> None:
    goals = (at_most(2), at_least(2))
    assert tuple(Figure("m", "f", "ms", values, goal).reached for goal in goals) == reached


def test_the_table_says_what_was_missed_and_what_was_skipped() -> None:
    report = Report({"cores": "2"}, skipped={"peer": "not here"})
    report.add("m", "too slow", "ms", [5], at_most(4))
    table = report.table()
    assert "<= 4  NO" in table
    assert "skipped: peer: not here" in table
    assert "cores 2" in table
