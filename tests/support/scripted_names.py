"""A name server in the hands of the test."""

import asyncio
from collections.abc import Collection
from ipaddress import ip_address

from mlhub_shared.runtime.hosts import Address
from tests.support.waiting import until


class ScriptedNames:
    """Tells the addresses that it was given by name; nobody can tell those of others, nor while it is `slow`."""

    def __init__(self, **names: list[str]) -> None:
        self._names = dict(names)
        self.slow = asyncio.Event()
        self.slow.set()
        self.questions: list[str] = []

    async def __call__(self, host: str) -> Collection[Address]:
        self.questions.append(host)
        await self.slow.wait()
        if host not in self._names:
            raise OSError("nobody knows this name")
        return [ip_address(text) for text in self._names[host]]

    def __setitem__(self, host: str, addresses: list[str]) -> None:
        self._names[host] = addresses

    def __delitem__(self, host: str) -> None:
        del self._names[host]

    async def asked(self) -> None:
        """Wait until somebody has asked, and heard the answer."""
        before = len(self.questions)
        await until(lambda: len(self.questions) >= before + 2)
