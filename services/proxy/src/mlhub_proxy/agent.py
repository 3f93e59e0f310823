"""Follows the records and the hub's routes, and tells the bus what HAProxy serves."""

import asyncio
import importlib.metadata
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta

import structlog

from mlhub_proxy import metrics
from mlhub_proxy.activity import ActivityLog
from mlhub_proxy.maps import Maps
from mlhub_proxy.names import Names
from mlhub_proxy.routes import Entries, of_record, of_route, target
from mlhub_proxy.runtime_api import HAProxyUnavailable, RuntimeApi
from mlhub_proxy.settings import ProxySettings
from mlhub_shared.bus import Bus, Changes, Lease, Table
from mlhub_shared.contracts.services import Activity, ProxyActivity, ProxyState, Route
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.errors import MLHubError, Permanent
from mlhub_shared.runtime.clock import Clock

log = structlog.get_logger(__name__)

_VERSION = importlib.metadata.version("mlhub-proxy")
_NAMES_EVERY = 30.0
"""Seconds between two looks at the addresses of named hosts."""
_NAMES_WITHIN, _NAMES_AT_START = 3.0, 0.3
"""Seconds that looking them up may take; at the start all routes wait for it."""

_LOOK_AGAIN = 1.0
"""Seconds until HAProxy is asked again that did not answer; it may only have been starting."""

_ACTIVITY_KEPT = timedelta(hours=1)
"""How long the report of a replica that is no more can be read: times that are past harm nobody."""

WORKSPACE, ROUTE = "workspace/", "route/"
"""Begin the names of sources; the hub's own routes come first where two claim one prefix."""


class Agent:
    """Keeps `maps` in step with the bus."""

    def __init__(
        self,
        bus: Bus,
        settings: ProxySettings,
        maps: Maps,
        api: RuntimeApi,
        clock: Clock,
        *,
        tls_pin: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._bus, self._settings, self._maps, self._api, self._clock = bus, settings, maps, api, clock
        self._workspaces = bus.start_table(bus.workspaces)
        self._routes = bus.start_table(bus.routes)
        self._names, self._tls_pin = Names(), tls_pin
        self._activity = ActivityLog(settings.activity_min_bytes)
        self._reported: dict[str, Activity] = {}
        self.workspaces_revision = self.routes_revision = 0
        self.problem: str | None = None
        """Why HAProxy did not answer the last time it was asked; None: it did."""
        self.lease = Lease(bus.proxies, settings.replica, self.state)

    def state(self) -> ProxyState:
        """What this replica serves."""
        return ProxyState(
            replica=self._settings.replica,
            workspaces_revision=self.workspaces_revision,
            routes_revision=self.routes_revision,
            version=_VERSION,
            tls_pin=self._tls_pin(),
        )

    def record(self, name: str) -> WorkspaceRecord | None:
        """A workspace by its name."""
        return self._workspaces.value(name)

    async def follow(self) -> None:
        """Bring every change to HAProxy, until cancelled."""
        await self._workspaces.synced()
        await self._routes.synced()
        with self._workspaces.changes() as records, self._routes.changes() as others:
            revisions = self._workspaces.revision, self._routes.revision
            # Not longer: names that are slow are asked for again with the first look at the changes.
            await self._resolve(_keys(self._routes), within=_NAMES_AT_START)
            await self._maps.load(self._of_records(_keys(self._workspaces)) | self._of_routes(_keys(self._routes)))
            self._applied(workspaces=revisions[0], routes=revisions[1])
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_records(records))
                group.create_task(self._follow_routes(others))
                group.create_task(self._follow_names())

    async def watch_activity(self) -> None:
        """Look at the counters again and again, until cancelled."""
        while True:
            try:
                counters = await self._api.counters()
            except HAProxyUnavailable as error:
                self.problem = str(error)
            else:
                self.problem = None
                metrics.OPEN.set(sum(counter.open_connections for counter in counters.values()))
                is_new = self._activity.look(counters, self._clock())
                if self._workspaces.is_live:
                    self._activity.keep(_keys(self._workspaces))
                await self._report(is_new=is_new)
            interval = self._settings.activity_interval
            await asyncio.sleep(min(interval, _LOOK_AGAIN) if self.problem else interval)

    async def _report(self, *, is_new: bool) -> None:
        report = self._activity.report()
        if not is_new and report.keys() == self._reported.keys():
            return
        value = ProxyActivity(replica=self._settings.replica, workspaces=report)
        try:
            await self._bus.activity.put(self._settings.replica, value, ttl=_ACTIVITY_KEPT)
        except MLHubError as error:
            log.warning("proxy.activity_not_told", error=str(error))
        else:
            self._reported = report

    async def _follow_records(self, changes: Changes) -> None:
        async for keys in changes:
            revision = self._workspaces.revision
            await self._maps.put(self._of_records(keys))
            self._applied(workspaces=revision)

    async def _follow_routes(self, changes: Changes) -> None:
        async for keys in changes:
            revision = self._routes.revision
            await self._resolve(keys)
            await self._maps.put(self._of_routes(keys))
            self._applied(routes=revision)

    async def _follow_names(self) -> None:
        while True:
            await asyncio.sleep(_NAMES_EVERY)
            keys = _keys(self._routes)
            if await self._resolve(keys):
                await self._maps.put(self._of_routes(keys))

    async def _resolve(self, keys: Iterable[str], *, within: float = _NAMES_WITHIN) -> bool:
        hosts = set()
        for route in filter(None, map(self._routes.value, keys)):
            with suppress(Permanent):
                hosts.add(target(route)[0])
        return await self._names.resolve(hosts, within=within)

    def _applied(self, *, workspaces: int | None = None, routes: int | None = None) -> None:
        if workspaces is not None:
            self.workspaces_revision = workspaces
        if routes is not None:
            self.routes_revision = routes
        self.lease.poke()

    def _of_records(self, keys: Iterable[str]) -> dict[str, Entries]:
        return {WORKSPACE + key: self._of_record(key) for key in keys}

    def _of_routes(self, keys: Iterable[str]) -> dict[str, Entries]:
        return {ROUTE + key: self._of_route(key) for key in keys}

    def _of_record(self, key: str) -> Entries:
        record = self._workspaces.value(key)
        try:
            if record is None:
                return {}
            return of_record(record, base=self._settings.base_url, has_sites=bool(self._settings.tools_domain))
        except Permanent as error:
            metrics.IGNORED.labels(kind="workspace").inc()
            log.error("proxy.record_ignored", workspace=key, error=str(error))
            return {}

    def _of_route(self, key: str) -> Entries:
        route = self._routes.value(key)
        try:
            return of_route(route, self._names.addresses, base=self._settings.base_url) if route else {}
        except Permanent as error:
            metrics.IGNORED.labels(kind="route").inc()
            log.error("proxy.route_ignored", route=key, error=str(error))
            return {}


def _keys(table: Table[WorkspaceRecord] | Table[Route]) -> set[str]:
    return {key for key, _ in table.items()}
