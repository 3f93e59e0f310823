"""Every page and where it is, below the hub's prefix; to be asked before JupyterHub's own."""

from pathlib import Path
from typing import Any

from jupyterhub.handlers.static import CacheControlStaticFilesHandler

from mlhub_hub.pages.accounts import AccountPage, ApprovalsPage, LoginPage, SignUpPage
from mlhub_hub.pages.actions import WorkspaceAction
from mlhub_hub.pages.dialogs import DeleteDialog, SshDialog, UpdateDialog
from mlhub_hub.pages.home import HomeEvents, HomePage
from mlhub_hub.pages.keys import SshKeysPage
from mlhub_hub.pages.nodes import NodesEvents, NodesPage
from mlhub_hub.pages.options import NewWorkspacePage, OptionsPage
from mlhub_hub.pages.sessions import SessionsEvents, SessionsPage
from mlhub_hub.pages.ssh_setup import SshSetupKey, SshSetupPage, SshSetupScript
from mlhub_hub.pages.starting import StartingEvents, StartingPage
from mlhub_hub.pages.tools import PortPage, ToolsDialog

_PACKAGE = Path(__file__).parent.parent

TEMPLATES = _PACKAGE / "templates"
"""For `JupyterHub.template_paths`."""

STATIC = _PACKAGE / "static"


class StaticFiles(CacheControlStaticFilesHandler):
    """Style and scripts; kept by browsers for as long as their `?v=` lasts."""

    def set_default_headers(self) -> None:
        """A browser must not guess what a file is."""
        super().set_default_headers()
        self.set_header("X-Content-Type-Options", "nosniff")


def page_handlers() -> list[tuple[Any, ...]]:
    """Patterns and handlers, as `JupyterHub.add_url_prefix` takes them."""
    return [
        (r"/home", HomePage),
        (r"/login", LoginPage),
        (r"/signup", SignUpPage),
        (r"/account", AccountPage),
        (r"/change-password", AccountPage),
        (r"/approvals", ApprovalsPage),
        (r"/ssh-keys", SshKeysPage),
        (r"/new-workspace", NewWorkspacePage),
        (r"/spawn", OptionsPage),
        (r"/spawn/([^/]+)", OptionsPage),
        (r"/spawn/([^/]+)/([^/]+)", OptionsPage),
        (r"/spawn-pending/([^/]+)", StartingPage),
        (r"/spawn-pending/([^/]+)/([^/]+)", StartingPage),
        (r"/workspaces/ssh", SshDialog),
        (r"/workspaces/tools", ToolsDialog),
        (r"/workspaces/port", PortPage),
        (r"/workspaces/confirm-update", UpdateDialog),
        (r"/workspaces/confirm-delete", DeleteDialog),
        (r"/workspaces/ssh-setup", SshSetupPage),
        (r"/ssh-setup/([A-Za-z0-9_-]+)/script", SshSetupScript),
        (r"/ssh-setup/([A-Za-z0-9_-]+)", SshSetupKey),
        (r"/workspaces/(start|stop|delete|extend|update|start-on-ssh)", WorkspaceAction),
        (r"/nodes", NodesPage),
        (r"/sessions", SessionsPage),
        (r"/mlhub/nodes", NodesEvents),
        (r"/mlhub/sessions", SessionsEvents),
        (r"/mlhub/events", HomeEvents),
        (r"/mlhub/progress", StartingEvents),
        (r"/mlhub-static/(.*)", StaticFiles, {"path": str(STATIC)}),
    ]
