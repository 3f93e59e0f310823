"""The pages and the API of the clean-up: look first, then do it."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import jinja2
from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from pydantic import BaseModel, Field

from mlhub_cleanup.auth import Caller, Gate, LoginNeeded, wants_html
from mlhub_cleanup.reports import ExpiredReport, Extension, Report, UsersReport
from mlhub_cleanup.settings import CleanupSettings
from mlhub_cleanup.sweep import Sweep
from mlhub_shared.bus import Bus, Table
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.message import new_id
from mlhub_shared.contracts.queries import EXTEND_WORKSPACE, ExtendWorkspace
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.errors import MLHubError, Temporary
from mlhub_shared.runtime.clock import Clock

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Look = Callable[[Caller | None], Awaitable[Report]]
"""Looks at all workspaces, and does what it finds to do for the caller; None: only looks."""


class ExtendRequest(BaseModel):
    """Let a workspace live longer."""

    user: str = Field(min_length=1, max_length=255)
    server: str = Field(default="", max_length=255)
    """Empty: the default server."""
    days: float = Field(ge=0, le=36500)
    """Added to its present end, fractions too. 0: it never expires."""


class Web:
    """Routes under the service's prefix."""

    def __init__(
        self,
        bus: Bus,
        records: Table[WorkspaceRecord],
        sweep: Sweep,
        gate: Gate,
        clock: Clock,
        settings: CleanupSettings,
    ) -> None:
        self._bus, self._records, self._sweep, self._gate, self._clock = bus, records, sweep, gate, clock
        self._hub_prefix, self._prefix = settings.hub_prefix, settings.service_prefix
        self._keep_volumes_days = settings.keep_volumes_days
        loader = jinja2.PackageLoader("mlhub_cleanup")
        self._template = jinja2.Environment(loader=loader, autoescape=True).get_template("report.html")

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        router = APIRouter(prefix=self._prefix.rstrip("/"))
        router.add_api_route("/", self.index, methods=["GET"], response_model=None)
        router.add_api_route("/oauth_callback", self._gate.finish_login, methods=["GET"], response_model=None)
        for name, look in (("users", self._look_for_users), ("expired", self._look_for_expired)):
            router.add_api_route(f"/{name}", self._shown(name, look), methods=["GET"], response_model=None)
            router.add_api_route(f"/{name}", self._done(name, look), methods=["POST"], response_model=None)
        router.add_api_route("/extend", self.extend, methods=["POST"])
        app.include_router(router)
        app.add_exception_handler(LoginNeeded, _to_login)

    async def index(self, request: Request) -> Response:
        """The first page."""
        await self._gate.reader(request)
        return RedirectResponse(f"{self._prefix}expired", 303)

    async def extend(self, request: Request) -> Extension:
        """Ask a workspace's worker to let it live longer."""
        caller = await self._gate.writer(request)
        wanted = await _body(request)
        record = self._record(wanted)
        query = ExtendWorkspace(
            workspace=record.workspace,
            generation=record.generation,
            expires_at=_extended(record, wanted.days, self._clock()),
            requester=caller.name,
            correlation_id=record.correlation_id or new_id(),
        )
        try:
            answer = await self._bus.ask(EXTEND_WORKSPACE, query, WorkspaceRecord, node=record.node)
        except MLHubError as error:
            raise HTTPException(503 if isinstance(error, Temporary) else 409, str(error)) from error
        return Extension(
            workspace=answer.name,
            user=answer.workspace.user,
            server=answer.workspace.server,
            expires_at=answer.expires_at,
        )

    def _shown(self, name: str, look: Look) -> Callable[..., Awaitable[Response]]:
        async def show(request: Request) -> Response:
            caller = await self._gate.reader(request)
            return self._answer(request, name, await look(None), caller)

        return show

    def _done(self, name: str, look: Look) -> Callable[..., Awaitable[Response]]:
        async def do(request: Request) -> Response:
            caller = await self._gate.writer(request)
            return self._answer(request, name, await look(caller), caller)

        return do

    async def _look_for_users(self, by: Caller | None) -> UsersReport:
        return await self._sweep.users(dry_run=by is None, ordered_by=by.name if by else None)

    async def _look_for_expired(self, by: Caller | None) -> ExpiredReport:
        return await self._sweep.expired(dry_run=by is None)

    def _answer(self, request: Request, name: str, report: Report, caller: Caller) -> Response:
        status = 503 if report.problem else 200
        if not wants_html(request):
            return JSONResponse(report.model_dump(mode="json"), status, headers=_HEADERS)
        page = self._template.render(
            report=report,
            name=name,
            prefix=self._prefix,
            hub_prefix=self._hub_prefix,
            form_token=caller.form_token,
            caller=caller.name,
            keep_volumes_days=self._keep_volumes_days,
        )
        return HTMLResponse(page, status, headers=_HEADERS)

    def _record(self, wanted: ExtendRequest) -> WorkspaceRecord:
        workspace = WorkspaceId(hub=self._bus.subjects.hub, user=wanted.user, server=wanted.server)
        record = self._records.value(workspace.name)
        if record is None:
            raise HTTPException(404, f"there is no workspace {workspace}")
        if record.node is None or not record.phase.is_active:
            raise HTTPException(409, f"workspace {workspace} is not running")
        return record


def _extended(record: WorkspaceRecord, days: float, now: datetime) -> datetime | None:
    if days == 0:
        return None
    if record.expires_at is None:
        raise HTTPException(409, f"workspace {record.workspace} never expires")
    return max(record.expires_at, now) + timedelta(days=days)


async def _body(request: Request) -> ExtendRequest:
    try:
        return ExtendRequest.model_validate_json(await request.body())
    except ValueError as error:
        raise HTTPException(422, "expected are user, server (may be left out) and days, a number from 0") from error


async def _to_login(_: Request, error: Exception) -> Response:
    if not isinstance(error, LoginNeeded):
        raise error
    return error.response
