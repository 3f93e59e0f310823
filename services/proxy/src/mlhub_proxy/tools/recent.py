"""Answers that hold for a few seconds; who asks the same meanwhile shares one question."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from typing import Generic, NamedTuple, TypeVar

from mlhub_shared.tasks import end_tasks

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Known(NamedTuple, Generic[V]):
    """An answer."""

    value: V
    until: float
    """Time of the event loop until which it holds."""


class Recent(Generic[K, V]):
    """Remembers what `ask` says for `keep(answer)` seconds, counted from the question; failures are not remembered."""

    def __init__(self, ask: Callable[[K], Awaitable[V]], keep: Callable[[V], float], *, most: int) -> None:
        self._ask, self._keep, self._most = ask, keep, most
        self._known: dict[K, Known[V]] = {}
        self._asking: dict[K, asyncio.Task[Known[V]]] = {}

    async def get(self, key: K) -> Known[V]:
        """The answer, as old as allowed; raises what `ask` raises."""
        known = self._known.get(key)
        if known is not None and known.until > asyncio.get_running_loop().time():
            return known
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.ensure_future(self._find(key))
            task.add_done_callback(_seen)
        # Who waits may go away; the others still want to know.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Ask no more."""
        await end_tasks(*self._asking.values())

    async def _find(self, key: K) -> Known[V]:
        asked = asyncio.get_running_loop().time()
        try:
            value = await self._ask(key)
        finally:
            del self._asking[key]
        if len(self._known) >= self._most:
            self._known.clear()
        known = self._known[key] = Known(value, asked + self._keep(value))
        return known


def _seen(task: "asyncio.Task[Known[V]]") -> None:
    with suppress(asyncio.CancelledError):
        task.exception()
