"""Paths that are no objects': what the server offers, and what somebody may do."""

from typing import Any

from aiohttp import web

from tests.support.kube.access import Access, Target, User
from tests.support.kube.resources import BY_PLURAL, Resource

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


class Discovery:
    """Answers them."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def answer(self, request: web.Request, user: User) -> web.Response | None:
        """None: there is nothing here."""
        path = request.path.rstrip("/")
        if path == _REVIEWS and request.method == "POST":
            return web.json_response(self._review(await request.json(), user), status=201)
        found = _documents().get(path)
        return web.json_response(found) if found else None

    def _review(self, review: dict[str, Any], user: User) -> dict[str, Any]:
        asked = review["spec"].get("resourceAttributes") or {}
        resource = "/".join(filter(None, (asked.get("resource", ""), asked.get("subresource", ""))))
        parts = (asked.get(key, "") for key in ("namespace", "name"))
        target = Target(asked.get("verb", ""), asked.get("group", ""), resource, *parts)
        return {**review, "status": {"allowed": self._access.allows(user, target)}}


def _documents() -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Resource]] = {}
    for resource in BY_PLURAL.values():
        groups.setdefault(resource.group, []).append(resource)
    found: dict[str, dict[str, Any]] = {
        "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0", "platform": "linux/amd64"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in groups if name]},
    }
    for group, resources in groups.items():
        path = f"/apis/{group}/v1" if group else "/api/v1"
        listed = [
            {
                "name": one.plural,
                "singularName": one.kind.lower(),
                "kind": one.kind,
                "namespaced": one.is_namespaced,
                "verbs": _VERBS,
            }
            for one in resources
        ]
        version = f"{group}/v1" if group else "v1"
        found[path] = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": listed}
    return found


def _group(name: str) -> dict[str, Any]:
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}
