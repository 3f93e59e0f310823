"""What the agent answers beside its health: the tables, and HAProxy's own figures."""

import httpx
from fastapi import FastAPI, HTTPException, Response

from mlhub_proxy.agent import Agent
from mlhub_proxy.maps import Maps
from mlhub_proxy.routes import PROBE, PUBLIC
from mlhub_proxy.runtime_api import RuntimeApi
from mlhub_shared.runtime.http import InternalToken

_METRICS_SOCKET = "metrics.sock"
_PATIENCE = 5.0


def add_endpoints(app: FastAPI, *, agent: Agent, maps: Maps, api: RuntimeApi) -> None:
    """Add the endpoints; each needs the internal token."""

    @app.get("/routes")
    async def routes(_: InternalToken) -> dict[str, object]:
        return {
            "workspaces_revision": agent.workspaces_revision,
            "routes_revision": agent.routes_revision,
            "public": maps.table(PUBLIC),
            "probe": maps.table(PROBE),
        }

    @app.get("/metrics/haproxy")
    async def haproxy_metrics(_: InternalToken) -> Response:
        transport = httpx.AsyncHTTPTransport(uds=api.path(_METRICS_SOCKET))
        async with httpx.AsyncClient(transport=transport, timeout=_PATIENCE) as client:
            try:
                answer = await client.get("http://haproxy/metrics")
            except httpx.HTTPError as error:
                raise HTTPException(503, "HAProxy does not answer") from error
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))
