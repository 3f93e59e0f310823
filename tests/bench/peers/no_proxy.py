"""A proxy for stock hubs on a machine without configurable-http-proxy."""

from jupyterhub.proxy import Proxy


class NoProxy(Proxy):
    """Costs nothing."""

    should_start = False

    async def add_route(self, routespec: str, target: str, data: dict[str, object]) -> None:
        self.table[routespec] = {"routespec": routespec, "target": target, "data": data}

    async def delete_route(self, routespec: str) -> None:
        self.table.pop(routespec, None)

    async def get_all_routes(self) -> dict[str, dict[str, object]]:
        return dict(self.table)

    table: dict[str, dict[str, object]] = {}  # noqa: RUF012  (there is one proxy)
