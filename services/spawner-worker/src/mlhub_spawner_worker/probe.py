"""Whether a workspace answers: asked through the proxy, as everybody will reach it."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import httpx

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

    def __init__(self, client: httpx.AsyncClient, probe_url: str) -> None:
        self._client, self._url = client, probe_url.rstrip("/")

    async def __call__(self, record: WorkspaceRecord) -> bool:
        """Any answer of the workspace itself will do, also one that asks for a login, or knows no such page."""
        try:
            response = await self._client.get(
                f"{self._url}{record.base_url}api", timeout=ONE_PROBE.total_seconds(), follow_redirects=False
            )
        except httpx.HTTPError:
            return False
        return response.status_code < 500 and _GONE not in response.headers
