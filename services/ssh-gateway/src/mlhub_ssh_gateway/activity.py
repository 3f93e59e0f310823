"""Telling the hub which workspaces are in use, so that nothing that culls the idle takes them away."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from datetime import timedelta

import structlog

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.errors import MLHubError
from mlhub_shared.runtime.clock import Clock
from mlhub_ssh_gateway.hub_api import HubApi

log = structlog.get_logger(__name__)

_GATHER = 1.0
"""Seconds in which logins and logouts are gathered into one report."""


class ActivityReports:
    """Reports at the start and end of sessions, and while bytes move; best effort."""

    def __init__(
        self, api: HubApi, clock: Clock, interval: timedelta, moved: Callable[[], Iterable[WorkspaceId]]
    ) -> None:
        """`moved` names the workspaces whose sessions moved bytes since it was last asked."""
        self._api, self._clock, self._interval, self._moved = api, clock, interval, moved
        self._noted: set[WorkspaceId] = set()
        self._some = asyncio.Event()

    def note(self, workspace: WorkspaceId) -> None:
        """Something happened in this workspace: report it soon."""
        self._noted.add(workspace)
        self._some.set()

    async def run(self) -> None:
        """Report for ever."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._interval.total_seconds()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._some.wait()
                    await asyncio.sleep(_GATHER)
            self._some.clear()
            noted, self._noted = self._noted, set()
            if loop.time() >= due:
                noted |= set(self._moved())
                due = loop.time() + self._interval.total_seconds()
            for workspace in noted:
                await self._report(workspace)

    async def _report(self, workspace: WorkspaceId) -> None:
        try:
            await self._api.report_activity(workspace, self._clock())
        except MLHubError as error:
            log.debug("activity.unreported", workspace=workspace.name, error=str(error))
