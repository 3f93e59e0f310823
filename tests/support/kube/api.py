"""HTTP: from a request to a verb on a place, past faults and rights, and back."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.support.kube.access import Access, Target, User
from tests.support.kube.discovery import Discovery
from tests.support.kube.errors import ApiError, bad_request
from tests.support.kube.faults import Faults
from tests.support.kube.kubelet import Kubelet
from tests.support.kube.logs import read_log
from tests.support.kube.patching import Patch
from tests.support.kube.resources import BY_PLURAL, Obj
from tests.support.kube.selectors import selecting
from tests.support.kube.store import Store
from tests.support.kube.verbs import Place, Verbs
from tests.support.kube.watching import Request as WatchRequest
from tests.support.kube.watching import watch

JSON = {"Content-Type": "application/json"}
_YES = {"true", "True", "1"}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_MAX_BODY = 3 * 1024 * 1024
_STREAMS = ("exec", "portforward", "attach")
_FOREVER = 1800.0

Stream = Callable[[web.Request, Place], Awaitable[web.StreamResponse]]


@dataclass
class Call:
    """A request that has been counted."""

    verb: str
    resource: str
    """With a subresource, `pods/log`."""
    namespace: str
    name: str
    user: str = ""
    status: int = 0
    """0: not answered yet."""


class Api:
    """Answers every request."""

    def __init__(self, store: Store, verbs: Verbs, access: Access, kubelet: Kubelet) -> None:
        self._store, self._verbs, self._access, self._kubelet = store, verbs, access, kubelet
        self.faults: Faults
        self.streams: dict[str, Stream] = {}
        self.calls: list[Call] = []
        self._discovery = Discovery(access)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer, whatever happens."""
        if request.path in {"/healthz", "/readyz", "/livez"}:
            return web.Response(text="ok")
        place = place_of(request.path)
        call = _call(request, place)
        self.calls.append(call)
        try:
            answer = await self._answer(request, place, call)
        except ApiError as error:
            answer = web.Response(status=error.code, body=error.to_json(), headers={**JSON, **error.headers})
        call.status = answer.status
        return answer

    async def _answer(self, request: web.Request, place: Place | None, call: Call) -> web.StreamResponse:
        answer = await self.faults.interfere(call.verb, call.resource)
        if answer is not None and answer.error is None:
            return web.Response(status=answer.status, text=answer.text)
        user = self._access.user(request.headers.get("Authorization", ""))
        call.user = user.name
        if answer is not None and answer.error is not None:
            raise answer.error
        if place is None:
            found = await self._discovery.answer(request, user)
            if found is None:
                raise ApiError(404, "NotFound", "the server could not find the requested resource")
            return found
        return await self._act(request, place, call, user)

    async def _act(self, request: web.Request, place: Place, call: Call, user: User) -> web.StreamResponse:
        target = Target(call.verb, place.resource.group, call.resource, place.namespace, place.name)
        self._access.check(user, target)
        if place.subresource in _STREAMS:
            # Over a WebSocket it is a GET, which could be taken for harmless: the server asks for both rights.
            self._access.check(user, Target("create", target.group, target.resource, target.namespace, target.name))
            if place.subresource not in self.streams:
                raise ApiError(404, "NotFound", "the server could not find the requested resource")
            return await self.streams[place.subresource](request, place)
        if place.subresource == "log":
            return await read_log(self._kubelet, self._verbs.found(place), request.query)
        if call.verb == "watch":
            return await self._watch(request, place)
        if call.verb == "patch":
            patch = Patch.from_request(request.headers.get("Content-Type", ""), await request.read())
            there = self._store.get(place.resource.plural, place.namespace, place.name)
            if patch.is_apply and there is None:
                self._access.check(user, Target("create", target.group, target.resource, target.namespace, ""))
            status, body = self._verbs.patch(place, patch, request.query)
            return web.Response(status=status, body=body, headers=JSON)
        status, body = self._plain(call.verb, place, request, await _json(request))
        return web.Response(status=status, body=body, headers=JSON)

    def _plain(self, verb: str, place: Place, request: web.Request, body: Obj) -> tuple[int, bytes]:
        params = request.query
        match verb:
            case "get":
                return 200, self._verbs.get(place)
            case "list":
                return 200, self._verbs.many(place, params)
            case "create":
                return 201, self._verbs.create(place, body, params)
            case "update":
                return 200, self._verbs.replace(place, body, params)
            case "delete":
                return 200, self._verbs.delete(place, body, params)
            case _:
                return 200, self._verbs.delete_many(place, body, params)

    async def _watch(self, request: web.Request, place: Place) -> web.StreamResponse:
        params = request.query
        matches = selecting(place.resource, params.get("labelSelector", ""), params.get("fieldSelector", ""))
        wanted = WatchRequest(
            place.resource,
            place.namespace,
            matches,
            params.get("resourceVersion", ""),
            bookmarks=params.get("allowWatchBookmarks") in _YES,
            initial=params.get("sendInitialEvents") in _YES,
        )
        response = web.StreamResponse(headers=JSON)
        await response.prepare(request)
        cut = self.faults.watching()
        telling = asyncio.ensure_future(self._tell(response, wanted))
        cutting = asyncio.ensure_future(cut.wait())
        try:
            seconds = float(params.get("timeoutSeconds") or _FOREVER)
            await asyncio.wait({telling, cutting}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not cut.is_set():
                await self.faults.spoken()
            elif request.transport is not None:
                request.transport.abort()
        finally:
            self.faults.watched(cut)
            telling.cancel()
            cutting.cancel()
            await asyncio.gather(telling, cutting, return_exceptions=True)
        return response

    async def _tell(self, response: web.StreamResponse, wanted: WatchRequest) -> None:
        async for line in watch(self._store, wanted):
            await self.faults.spoken()
            await response.write(line)


def place_of(path: str) -> Place | None:
    """What a path is about; None: no objects."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, rest = "", parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, rest = parts[1], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    resource = BY_PLURAL.get(rest[0])
    if resource is None or resource.group != group:
        return None
    name = rest[1] if len(rest) > 1 else ""
    return Place(resource, namespace, name, rest[2] if len(rest) > 2 else "")


def _call(request: web.Request, place: Place | None) -> Call:
    if place is None:
        return Call(request.method.lower(), request.path, "", "")
    if request.method == "GET":
        verb = "get" if place.name else "watch" if request.query.get("watch") in _YES else "list"
    else:
        verb = _VERBS.get(request.method, request.method.lower())
    if verb == "delete" and not place.name:
        verb = "deletecollection"
    resource = f"{place.resource.plural}/{place.subresource}" if place.subresource else place.resource.plural
    return Call(verb, resource, place.namespace, place.name)


async def _json(request: web.Request) -> dict[str, Any]:
    raw = await request.read()
    if not raw:
        return {}
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from error
    if not isinstance(body, dict):
        raise bad_request("the object provided is unrecognized (must be of type object)")
    return body


def application(api: Api) -> web.Application:
    """The server's one route."""
    app = web.Application(client_max_size=_MAX_BODY)
    app.router.add_route("*", "/{path:.*}", api.handle)
    return app
