"""The agent's side of tools: two small web applications on sockets that HAProxy alone reaches."""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from fastapi import FastAPI, Request, Response

from mlhub_proxy import metrics
from mlhub_proxy.settings import ProxySettings
from mlhub_proxy.tools.asked import Asked
from mlhub_proxy.tools.denials import Denials
from mlhub_proxy.tools.doorkeeper import Doorkeeper, Permission, keep_visitor
from mlhub_proxy.tools.hub import Hub
from mlhub_proxy.tools.login import PREFIX, Login
from mlhub_proxy.tools.pages import Pages, Refusal
from mlhub_proxy.tools.recent import Recent
from mlhub_proxy.tools.seals import Seals
from mlhub_shared.bus.outbox import Outbox
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.runtime.service import Runtime, serve_app

CHECK, LOGIN = "check.sock", "login.sock"
"""In HAProxy's folder. Apart: what people reach by HAProxy must not reach the check."""

_ANSWERED = "X-Tools-Answer"
"""On every answer, so that HAProxy knows it from an error on the way."""
_MOST_VISITORS = 10_000

RecordOf = Callable[[str], WorkspaceRecord | None]
Admit = Callable[[Asked], Awaitable[Permission]]


@asynccontextmanager
async def tools(
    runtime: Runtime, settings: ProxySettings, record_of: RecordOf, path: Callable[[str], str]
) -> AsyncIterator[None]:
    """Answer HAProxy; `path` makes a socket's name short enough to listen on."""
    pages, check, login = Pages(settings.base_url), _app(), _app()
    async with AsyncExitStack() as stack:
        admit = await _admit(runtime, settings, record_of, pages, login, stack)
        _add_check(check, admit, pages)
        for name, app in ((CHECK, check), (LOGIN, login)):
            _keep_serving(runtime, app, name, path(name))
        yield


async def _admit(
    runtime: Runtime,
    settings: ProxySettings,
    record_of: RecordOf,
    pages: Pages,
    login: FastAPI,
    stack: AsyncExitStack,
) -> Admit:
    secret = settings.hub_api_token
    if secret is None:
        return _nobody
    hub = Hub(settings.hub_api_url, secret, f"{settings.base_url}{PREFIX}oauth_callback")
    stack.push_async_callback(hub.close)
    visitors = Recent(hub.whose, keep_visitor, most=_MOST_VISITORS)
    stack.push_async_callback(visitors.close)
    seals, outbox = Seals(secret), Outbox(runtime.bus)
    runtime.keep_running("denials", outbox.run)
    Login(hub, seals, pages, record_of, settings).add_to(login)
    doorkeeper = Doorkeeper(runtime.bus, record_of, visitors, seals, Denials(outbox.write), base=settings.base_url)
    stack.push_async_callback(doorkeeper.close)
    return doorkeeper.admit


async def _nobody(_: Asked) -> Permission:
    raise Refusal(503, "Tools are closed", "This proxy has no token of the hub, which it would have to ask.")


def _add_check(app: FastAPI, admit: Admit, pages: Pages) -> None:
    async def check(request: Request) -> Response:
        asked = Asked.of(request.headers)
        try:
            response = _let_in(await admit(asked))
        except Refusal as refusal:
            response = pages.answer(refusal, wants_html=asked.wants_html)
        metrics.TOOLS.labels(status=str(response.status_code)).inc()
        response.headers[_ANSWERED] = "1"
        return response

    app.add_api_route("/check", check, methods=["GET"], response_model=None)


def _let_in(permission: Permission) -> Response:
    headers = {
        "X-Tools-Keep": f"{permission.seconds:.3f}",
        "X-Tools-User": permission.user,
        "X-Tools-Hide": "1" if permission.hides_authorization else "",
        "X-Tools-Ip": permission.ip,
        "X-Tools-Port": str(permission.port),
    }
    return Response(headers={name: value for name, value in headers.items() if value})


def _app() -> FastAPI:
    return FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


def _keep_serving(runtime: Runtime, app: FastAPI, name: str, path: str) -> None:
    async def serve() -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with suppress(FileNotFoundError):
            os.unlink(path)  # of a former agent
        listener.bind(path)
        await serve_app(app, listener, runtime.stopping)

    runtime.keep_running(name.removesuffix(".sock"), serve)
