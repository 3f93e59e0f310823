"""Whether a workspace answers: asked through the proxy, as everybody will reach it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Self

import aiohttp
from yarl import URL

from mlhub_shared.contracts.workspace import WorkspaceRecord

Probe = Callable[[WorkspaceRecord], Awaitable[bool]]
"""Asks once; True if the workspace itself has answered."""

ONE_PROBE = timedelta(seconds=4)
"""Longer than the proxy waits for a silent workspace, so that its answer is what ends the probe."""

FIRST_DELAY, MOST_DELAY = timedelta(milliseconds=10), timedelta(milliseconds=500)
"""Between probes: a small image answers at once, and nobody notices half a second after many."""

_GONE = "X-MLHub-Gone"
"""On the proxy's own answer for a workspace it takes for stopped, which for a moment it may after a restart of one."""


class HttpProbe:
    """GETs `<base_url>api` at the proxy's probe frontend."""

    def __init__(self, session: aiohttp.ClientSession, probe_url: str) -> None:
        self._session, self._url = session, probe_url.rstrip("/")

    @classmethod
    @asynccontextmanager
    async def open(cls, probe_url: str) -> AsyncIterator[Self]:
        """With connections of its own, and no memory: what one workspace says is never passed on to another."""
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=ONE_PROBE.total_seconds()),
        )
        async with session:
            yield cls(session, probe_url)

    async def __call__(self, record: WorkspaceRecord) -> bool:
        """Any answer of the workspace itself will do, also one that asks for a login, or knows no such page."""
        try:
            url = URL(f"{self._url}{record.base_url}api", encoded=True)
            async with self._session.get(url, allow_redirects=False) as response:
                return response.status < 500 and _GONE not in response.headers
        except (aiohttp.ClientError, TimeoutError):
            return False
