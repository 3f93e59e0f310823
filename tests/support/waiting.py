"""Bounded waiting for what other processes do."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], bool], *, within: float = 30) -> None:
    """Wait until the condition holds; TimeoutError after `within` seconds."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  (what is waited for knows of no event)
            await asyncio.sleep(0.02)


async def until_async(condition: Callable[[], Awaitable[bool]], *, within: float = 30) -> None:
    """Wait until the awaited condition holds; TimeoutError after `within` seconds."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
