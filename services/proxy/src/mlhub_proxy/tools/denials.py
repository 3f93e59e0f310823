"""Who was not let in, for the audit stream."""

import asyncio
from collections.abc import Callable

from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.workspace import WorkspaceRecord

_SAME = 60.0
"""Seconds in which the same person at the same workspace is told of once: a page asks for many things."""
_MOST = 10_000
"""People remembered."""


class Denials:
    """Tells of each one once in a while."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell
        self._told: dict[tuple[str, str], float] = {}

    def note(self, record: WorkspaceRecord, requester: str, *, client: str, port: int | None) -> None:
        """Somebody known was refused."""
        now, key = asyncio.get_running_loop().time(), (record.name, requester)
        if now - self._told.get(key, -_SAME) < _SAME:
            return
        if len(self._told) >= _MOST:
            self._told.clear()
        self._told[key] = now
        self._tell(
            Event(
                kind=EventKind.ACCESS_DENIED,
                workspace=record.workspace,
                generation=record.generation,
                requester=requester,
                message="No access to the tools of this workspace",
                detail={"client": client, "through": "tools", "port": port},
            )
        )
