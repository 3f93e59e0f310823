"""The routes that the hub owns: written anew whenever the bus has less than the hub."""

import asyncio

import structlog

from mlhub_shared.bus import Table
from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.contracts.services import Route, route_key
from mlhub_shared.errors import MLHubError

log = structlog.get_logger(__name__)

_QUIET = 0.5
"""Seconds of rest between two looks, while a whole table comes back."""


class RouteProjection:
    """The routes of the hub, of services and extras, as JupyterHub has added them."""

    def __init__(self, table: Table[Route]) -> None:
        self._table = table
        self._wanted: dict[str, Route] = {}

    def values(self) -> list[Route]:
        """The routes on the bus."""
        return self._table.values()

    async def put(self, route: Route) -> None:
        """Have this route; it is written again should the bus lose it."""
        key = route_key(route.routespec)
        self._wanted[key] = route
        if self._table.value(key) != route:
            await self._table.bucket.put(key, route)

    async def delete(self, routespec: str) -> bool:
        """Have this route no longer; False if it was none of ours."""
        key = route_key(routespec)
        is_ours = self._wanted.pop(key, None) is not None or self._table.get(key) is not None
        if is_ours:
            await self._table.bucket.delete(key)
        return is_ours

    async def run(self) -> None:
        """Keep the bucket as it should be, until cancelled."""
        backoff = Backoff(first=0.2, most=10)
        with self._table.changes() as changes:
            while True:
                try:
                    await self._write_missing()
                except MLHubError as error:
                    log.warning("routes.wait_for_bus", error=str(error))
                    await backoff.sleep()
                    continue
                backoff.reset()
                await anext(changes)
                await asyncio.sleep(_QUIET)

    async def _write_missing(self) -> None:
        for key, route in list(self._wanted.items()):
            if self._table.value(key) != route:
                await self._table.bucket.put(key, route)
