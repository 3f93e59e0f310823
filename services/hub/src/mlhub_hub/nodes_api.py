"""The nodes in the REST API: `/hub/api/nodes`, for administrators."""

import json
from typing import Any

from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.scopes import needs_scope
from tornado import web

from mlhub_hub.context import SETTINGS_KEY, HubContext
from mlhub_hub.nodes import Node, all_nodes, drain
from mlhub_hub.requester import requester_of
from mlhub_shared.errors import MLHubError

Model = dict[str, Any]


class _NodeHandler(APIHandler):
    @property
    def mlhub(self) -> HubContext:
        """The hub's context."""
        context: HubContext = self.settings[SETTINGS_KEY]
        return context

    def nodes(self) -> dict[str, Node]:
        """All nodes by name."""
        nodes = all_nodes(self.mlhub.workers.values(), self.mlhub.workspaces.values())
        return {node.name: node for node in nodes}


class NodesHandler(_NodeHandler):
    """All of them."""

    @needs_scope("admin:servers")
    def get(self) -> None:
        """The nodes, by name."""
        self.finish(json.dumps([node_model(node) for node in self.nodes().values()]))


class NodeHandler(_NodeHandler):
    """One of them."""

    @needs_scope("admin:servers")
    def get(self, name: str) -> None:
        """The node."""
        self.finish(node_model(self._node(name)))

    @needs_scope("admin:servers")
    async def patch(self, name: str) -> None:
        """Drain it, or have it take workspaces again."""
        body = self.get_json_body()
        draining = body.get("draining") if isinstance(body, dict) and body.keys() == {"draining"} else None
        if not isinstance(draining, bool):
            raise web.HTTPError(400, 'draining: must be true or false, as in {"draining": true}')
        node = self._node(name)
        try:
            lease = await drain(self.mlhub.bus, name, draining=draining, requester=requester_of(self))
        except MLHubError as error:
            raise web.HTTPError(503, f"{name} does not answer: {error}") from None
        [changed] = all_nodes([lease], [])
        self.finish(node_model(Node(name, changed.state, lease, node.workspaces)))

    def _node(self, name: str) -> Node:
        node = self.nodes().get(name)
        if node is None:
            raise web.HTTPError(404, f"There is no node {name[:80]!r}.")
        return node


def node_model(node: Node) -> Model:
    """A node as JSON."""
    told = node.lease.model_dump(mode="json", exclude={"attach"}) if node.lease else {}
    return told | {"node": node.name, "state": node.state, "workspaces": node.workspaces}


def node_handlers() -> list[tuple[Any, ...]]:
    """Patterns and handlers, under the hub's prefix."""
    return [(r"/api/nodes", NodesHandler), (r"/api/nodes/([^/]+)", NodeHandler)]
