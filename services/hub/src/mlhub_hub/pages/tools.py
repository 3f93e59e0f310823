"""What listens in a workspace beside Jupyter, and the addresses where the proxy shows it."""

from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from jupyterhub.user import User
from tornado import web

from mlhub_hub.pages.base import PageHandler
from mlhub_hub.pages.dialogs import AboutWorkspace
from mlhub_hub.pages.view import links_of
from mlhub_hub.pages.workspaces import server_of
from mlhub_hub.settings import HubSettings
from mlhub_shared.contracts.queries import LIST_PORTS, ListPorts, Ports
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord
from mlhub_shared.errors import MLHubError

_LISTED_WITHIN = timedelta(seconds=4)

_OWN = (
    ("vnc", "Desktop (VNC)"),
    ("vscode", "VS Code"),
    ("ungit", "Ungit"),
    ("netdata", "Netdata"),
    ("glances", "Glances"),
)
"""What ml-workspace serves below `tools/` by itself."""


_LABEL = 63
"""Letters between two dots of a host's name."""


def port_address(settings: HubSettings, name: str, port: int | str, *, below: str) -> str:
    """Where the proxy shows a port: at a site of its own where there is a domain for them and the name fits into it."""
    label, public = f"{port}--{name}", urlsplit(settings.public_url)
    if not settings.tools_domain or len(label) > _LABEL:
        return f"{below}tools/{port}/"
    own_port = f":{public.port}" if public.port else ""
    return f"{public.scheme}://{label}.{settings.tools_domain}{own_port}/"


class _Ports(PageHandler):
    def address_of(self, user: User, server: str, port: int | str) -> str:
        """Of a port of this workspace."""
        links = links_of(server_of(user, server), hub_url=self.hub.base_url, base_url=self.settings["base_url"])
        name = self.context.workspace(user.name, server).name
        return port_address(self.context.settings, name, port, below=links.open)


class ToolsDialog(_Ports, AboutWorkspace):
    """Which ports listen, as its worker sees it now."""

    template = "_tools.html"

    async def facts(self, user: User, server: str) -> dict[str, Any]:
        """The ports, with what there is to say where nobody can tell them."""
        record = self.record_of(user, server)
        is_ready = record is not None and record.phase is Phase.READY
        ports = await self._ports(record) if record is not None and is_ready else None
        return {
            "is_ready": is_ready,
            "ports": ports.ports if ports else [],
            "is_silent": is_ready and ports is None,
            "own_tools": _OWN if record is not None and record.spec.own_tools else (),
            "port_address": partial(self.address_of, user, server),
            "port_url": self.page_url("workspaces/port"),
        }

    async def _ports(self, record: WorkspaceRecord) -> Ports | None:
        query = ListPorts(workspace=record.workspace)
        try:
            return await self.context.bus.ask(LIST_PORTS, query, Ports, node=record.node, timeout=_LISTED_WITHIN)
        except MLHubError:
            return None


class PortPage(_Ports):
    """Leads to the port that somebody has typed."""

    @web.authenticated
    async def get(self) -> None:
        """Go there."""
        user, port = self.asked_user(), self.get_query_argument("port", "")
        server = self.get_query_argument("server", "")
        if server not in {"", *user.orm_spawners}:
            raise web.HTTPError(404, "There is no such workspace.")
        if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
            raise web.HTTPError(400, "A port is a number from 1 to 65535.")
        self.redirect(self.address_of(user, server, int(port)))
