"""JupyterHub's view of the proxy: it follows the workers' records by itself, and the hub adds only what has none."""

import asyncio
from datetime import timedelta
from typing import Any

import structlog
from jupyterhub.proxy import Proxy
from traitlets import Bool

from mlhub_hub.context import HubContext
from mlhub_hub.projections import RouteProjection
from mlhub_shared.contracts.services import ProxyActivity, Route
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord
from mlhub_shared.errors import MLHubError

log = structlog.get_logger(__name__)

APPLIED_WITHIN = timedelta(seconds=5)
"""How long a ready workspace waits for the last proxy to have its route."""


class NatsProxy(Proxy):
    """Routes of the hub, services and extras go to the bus; those of workspaces come from their records."""

    should_start = Bool(False, config=True, help="The proxy runs by itself.")

    @property
    def _context(self) -> HubContext:
        context: HubContext = self.app.context
        return context

    @property
    def _routes(self) -> RouteProjection:
        routes: RouteProjection = self.app.routes
        return routes

    async def add_route(self, routespec: str, target: str, data: dict[str, Any]) -> None:
        """Add a route; that of a workspace is there already, or about to be."""
        routespec = self.validate_routespec(routespec)
        if "server_name" in data:
            await self._applied(routespec, data["user"], data["server_name"])
        else:
            try:
                await self._routes.put(Route(routespec=routespec, target=target, data=data))
            except MLHubError as error:
                # The projection writes it as soon as the bus is back.
                log.warning("route.not_written", routespec=routespec, error=str(error))

    async def delete_route(self, routespec: str) -> None:
        """Remove a route; that of a workspace goes with its record, and is never JupyterHub's to remove."""
        if not await self._routes.delete(self.validate_routespec(routespec)):
            log.debug("route.goes_with_record", routespec=routespec)

    async def get_all_routes(self) -> dict[str, dict[str, Any]]:
        """Every route, as JupyterHub wants to see it."""
        context = self._context
        routes = {
            route.routespec: {"routespec": route.routespec, "target": route.target, "data": dict(route.data)}
            for route in self._routes.values()
        }
        activity = last_activity(context.activity.values())
        for record in context.workspaces.values():
            if record.phase is Phase.READY:
                routes[record.base_url] = self._workspace_route(record, activity.get(record.name))
        return routes

    def _workspace_route(self, record: WorkspaceRecord, last: str | None) -> dict[str, Any]:
        data = {"user": record.workspace.user, "server_name": record.workspace.server}
        if last is not None:
            data["last_activity"] = last
        return {"routespec": record.base_url, "target": self._context.settings.probe_url, "data": data}

    async def _applied(self, routespec: str, user: str, server: str) -> None:
        context = self._context
        entry = context.workspaces.get(context.workspace(user, server).name)
        if entry is None or entry.value.phase is not Phase.READY:
            log.warning("route.not_ready", routespec=routespec)
            return
        try:
            async with asyncio.timeout(APPLIED_WITHIN.total_seconds()):
                with context.proxies.changes() as changes:
                    while any(state.workspaces_revision < entry.revision for state in context.proxies.values()):
                        await anext(changes)
        except TimeoutError:
            behind = [state.replica for state in context.proxies.values() if state.workspaces_revision < entry.revision]
            log.warning("route.not_applied", routespec=routespec, proxies=behind)


def last_activity(reports: list[ProxyActivity]) -> dict[str, str]:
    """When each workspace was last used, over all replicas of the proxy."""
    latest: dict[str, str] = {}
    for report in reports:
        for name, activity in report.workspaces.items():
            latest[name] = max(latest.get(name, ""), activity.last_activity.isoformat())
    return latest
