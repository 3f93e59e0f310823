"""The small web application of every service: `/live`, `/ready`, `/metrics`, and what it adds."""

import secrets
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import SecretStr

from mlhub_shared.runtime.health import Health


def create_app(service: str, health: Health, token: SecretStr | None) -> FastAPI:
    """An application with the common routes; `app.state.internal_token` serves `require_internal_token`."""
    app = FastAPI(title=f"ML Hub {service}", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.internal_token = token

    @app.get("/live")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        problems = health.problems()
        return JSONResponse({"ready": not problems, "problems": problems}, 503 if problems else 200)

    @app.get("/metrics", dependencies=[Depends(require_internal_token)])
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


def create_waiting_app(service: str, health: Health, token: SecretStr | None) -> FastAPI:
    """What a service answers until it has started: the common routes, and that everything else is to come."""
    app = create_app(service, health, token)

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def later() -> Response:
        raise HTTPException(503, "it has not started yet", headers={"Retry-After": "2"})

    return app


async def require_internal_token(request: Request) -> None:
    """Refuse whoever does not bring the deployment's internal token: 401, also when none is set."""
    expected = _value(request.app.state.internal_token)
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    # An empty token is none: a variable that is set to nothing must not open what it should close.
    right = expected != "" and scheme.lower() == "bearer"
    if not right or not secrets.compare_digest(given.encode(), expected.encode()):
        raise HTTPException(401, "this needs the internal token", headers={"WWW-Authenticate": "Bearer"})


def _value(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


InternalToken = Annotated[None, Depends(require_internal_token)]
"""Annotate a parameter with it to keep strangers from an endpoint."""
