"""JupyterHub's configuration, made from our settings."""

from typing import Any

from traitlets.config import Config

from mlhub_hub import services
from mlhub_hub.logs import log_request
from mlhub_hub.options import apply_user_options
from mlhub_hub.pages.handlers import TEMPLATES
from mlhub_hub.pages.security import CONTENT_SECURITY_POLICY
from mlhub_hub.settings import HubSettings

_DAY = 24 * 3600

_HEADERS = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}

_USER_NAME = r"[^\x00-\x1f\x7f]{1,255}\Z"
"""Whatever the authenticator: no workspace can have a longer name in its identity. Ours has a stricter rule."""


def jupyterhub_config(settings: HubSettings) -> Config:
    """What holds unless a `jupyterhub_user_config.py` says otherwise."""
    c = Config()
    _hub(c, settings)
    _timing(c)
    _spawner(c, settings)
    c.JupyterHub.services = services.services(settings)
    # Long random tokens gain nothing from 16,384 rounds of hashing, which hold the hub up at each of their requests.
    c.JupyterHub.trust_user_provided_tokens = services.tokens_are_strong(settings)
    c.JupyterHub.load_roles = services.roles(settings)
    c.JupyterHub.custom_scopes = services.CUSTOM_SCOPES
    if settings.proxy_hub_api_token is not None:
        c.JupyterHub.extra_user_scopes = services.EVERYBODYS_SCOPES
    return c


def tornado_settings(users: dict[str, Any], *, is_https: bool) -> dict[str, Any]:
    """The web application's settings: what a user's configuration names, and ours beside it."""
    # Not in the configuration, where a user's `tornado_settings` would replace them all. A start is answered at once.
    ours: dict[str, Any] = {"slow_spawn_timeout": 0, "log_function": log_request}
    if is_https:
        # Of the token against forged forms, too.
        ours["cookie_options"] = {"secure": True}
    return ours | users | {"headers": _HEADERS | users.get("headers", {})}


def _hub(c: Config, settings: HubSettings) -> None:
    hub = c.JupyterHub
    hub.spawner_class = "mlhub_hub.spawner.BusSpawner"
    hub.proxy_class = "mlhub_hub.proxy.NatsProxy"
    hub.authenticator_class = "mlhub_hub.auth.authenticator.SignUpAuthenticator"
    c.SignUpAuthenticator.open_signup = settings.open_signup
    c.Authenticator.username_pattern = _USER_NAME
    c.Authenticator.admin_users = {settings.admin_name}
    hub.bind_url = settings.public_url
    hub.hub_bind_url = f"http://{settings.listen_host}:{settings.listen_port}"
    hub.hub_connect_url = settings.target_url
    hub.public_url = settings.public_url + "/"
    hub.db_url = settings.database()
    # JupyterHub backs SQLite up before it changes the schema; another database's owner says when.
    hub.upgrade_db = settings.upgrades_database
    if settings.cookie_secret is not None:
        hub.cookie_secret = bytes.fromhex(settings.cookie_secret.get_secret_value())
    hub.cookie_secret_file = str(settings.data_dir.absolute() / "jupyterhub_cookie_secret")
    hub.template_paths = [str(TEMPLATES)]
    # After the login, to the list of one's workspaces: nothing starts by itself.
    hub.default_url = "/hub/home"
    hub.redirect_to_server = False
    hub.implicit_spawn_seconds = 0
    hub.allow_named_servers = True
    hub.admin_access = True


def _timing(c: Config) -> None:
    hub = c.JupyterHub
    # The workers queue; nobody is turned away, and waiting in line is no failure.
    hub.concurrent_spawn_limit = 0
    # The workspaces and the proxy outlive the hub.
    hub.cleanup_servers = False
    hub.cleanup_proxy = False
    hub.init_spawners_timeout = 1
    hub.last_activity_interval = 60


def _spawner(c: Config, settings: HubSettings) -> None:
    spawner = c.Spawner
    spawner.start_timeout = _DAY
    # The worker has seen the workspace answer before; what remains is a request through the same proxy.
    spawner.http_timeout = 10
    # Deaths come as events; this only catches what they missed.
    spawner.poll_interval = 300
    spawner.consecutive_failure_limit = 0
    spawner.hub_connect_url = settings.workspace_api_url
    spawner.apply_user_options = apply_user_options
