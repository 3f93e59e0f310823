"""Taking turns, so that the machine's moods meet all contenders alike."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


async def interleave(runs: int, contenders: Mapping[str, T], turn: Callable[[T], Awaitable[U]]) -> dict[str, list[U]]:
    """Give each contender a turn, then each again, and so on: A B A B."""
    results: dict[str, list[U]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, contender in contenders.items():
            results[name].append(await turn(contender))
    return results


async def rotate(
    runs: int, contenders: Mapping[str, T], turn: Callable[[T], Awaitable[U]], *, warm_up: int = 1
) -> dict[str, list[U]]:
    """Like `interleave`, but nobody is always first: A B C, B C A; the results of the first rounds are thrown away."""
    results: dict[str, list[U]] = {name: [] for name in contenders}
    names = list(contenders)
    for run in range(warm_up + runs):
        shift = run % len(names)
        for name in names[shift:] + names[:shift]:
            result = await turn(contenders[name])
            if run >= warm_up:
                results[name].append(result)
    return results


async def at_once(limit: int, items: Iterable[T], work: Callable[[T], Awaitable[U]]) -> list[U]:
    """Work on all items, `limit` at a time; results in the order they come."""
    pending = iter(items)
    results: list[U] = []

    async def take() -> None:
        for item in pending:
            results.append(await work(item))

    async with asyncio.TaskGroup() as group:
        for _ in range(limit):
            group.create_task(take())
    return results


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not below this share of them."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
