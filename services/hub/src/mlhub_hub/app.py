"""JupyterHub with the bus at its side."""

import asyncio
import logging
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import structlog
from jupyterhub.app import JupyterHub
from jupyterhub.services.service import Service
from traitlets import Instance

from mlhub_hub import modes, options, services
from mlhub_hub.auth import first_admin, key_projection
from mlhub_hub.auth.authenticator import SignUpAuthenticator
from mlhub_hub.auth.deleted_users import SETTINGS_KEY as DELETED_USERS
from mlhub_hub.auth.deleted_users import DeletedUsers
from mlhub_hub.auth.key_use import follow_key_use
from mlhub_hub.auth.tables import create_tables
from mlhub_hub.auth.user_changes import follow_users
from mlhub_hub.authorize import authorize_handlers
from mlhub_hub.config import jupyterhub_config, tornado_settings
from mlhub_hub.context import SETTINGS_KEY, HubContext
from mlhub_hub.database import use_wal
from mlhub_hub.health import HealthHandler
from mlhub_hub.logs import WithoutQueries
from mlhub_hub.oauth import OAuthServer
from mlhub_hub.pages.handlers import page_handlers
from mlhub_hub.projections import RouteProjection
from mlhub_hub.rest import rest_handlers
from mlhub_hub.settings import HubSettings
from mlhub_hub.watch import Watch
from mlhub_shared.bus import Bus
from mlhub_shared.runtime import configuration
from mlhub_shared.runtime.clock import utc_now
from mlhub_shared.runtime.logging import configure_logging

log = structlog.get_logger(__name__)

_CLOSED_WITHIN = 5
"""Seconds; a bus that is away must not keep the hub from ending."""

_UPGRADE = "If it is that of an earlier version: back it up, and set MLHUB_HUB_DATABASE_UPGRADE=true"


class MLHub(JupyterHub):
    """Opens the bus before there are users, and closes it last."""

    name = "mlhub"
    hub_settings = Instance(HubSettings)
    context: HubContext
    routes: RouteProjection

    def load_config_file(self, filename: str, path: Any = None) -> None:
        """Take our settings, then the user's file, which wins; a file that happens to lie about is not read."""
        self.update_config(jupyterhub_config(self.hub_settings))
        if (user_config := self.hub_settings.user_config) is not None:
            try:
                super().load_config_file(user_config.name, path=str(user_config.parent.absolute()))
            except Exception as error:  # noqa: BLE001  (anything may be written in it)
                configuration.refuse(f"{user_config}: {_said_by(error, user_config)}")

    def init_logging(self) -> None:
        """Hand JupyterHub's lines to the handler of all others."""
        super().init_logging()
        self.log.propagate = True
        for handler in logging.getLogger().handlers:
            handler.addFilter(WithoutQueries())

    def init_db(self) -> None:
        """Open the database, and make our own tables beside JupyterHub's."""
        use_wal()
        try:
            super().init_db()
        except SystemExit:
            if not self.upgrade_db:
                log.error("database.not_opened", remedy=_UPGRADE)
            raise
        create_tables(self.db.get_bind())
        follow_users()
        if issubclass(self.authenticator_class, SignUpAuthenticator):
            self._prepare_first_admin()

    def _prepare_first_admin(self) -> None:
        settings = self.hub_settings
        first_admin.prepare(
            self.db,
            settings.admin_name,
            password=settings.admin_password.get_secret_value() if settings.admin_password else None,
            link=lambda token: f"{settings.public_url}{self.hub_prefix}signup?{urlencode({'token': token})}",
            data_dir=settings.data_dir,
            now=utc_now(),
        )

    def init_proxy(self) -> None:
        """The proxy's view of the world knows paths, no hosts."""
        if self.subdomain_host:
            self.exit("JupyterHub.subdomain_host: ML Hub serves everything under one host, without subdomains")
        super().init_proxy()

    def init_oauth(self) -> None:
        """Put our provider in the place of JupyterHub's."""
        super().init_oauth()
        made = self.oauth_provider
        self.oauth_provider = OAuthServer(made.db, made._validator, token_expires_in=self.oauth_token_expires_in)

    async def init_users(self) -> None:
        """Open the bus: configuration and database are there, spawners are not yet."""
        bus = await Bus.open(self.hub_settings.bus("hub"))
        self.context = context = await HubContext.follow(self.hub_settings, bus)
        self.tornado_settings[SETTINGS_KEY] = context
        options.guard(context)
        route_table = bus.start_table(bus.routes)
        await route_table.synced()
        self.routes = RouteProjection(route_table)
        bus.run(self.routes.run())
        self.tornado_settings[key_projection.SETTINGS_KEY] = key_projection.project_ssh_keys(self.db, bus)
        follow_key_use(self.db, bus)
        self.tornado_settings[DELETED_USERS] = deleted = DeletedUsers(self.db, bus)
        bus.run(deleted.run())
        await super().init_users()

    async def init_role_assignment(self) -> None:
        """Give out the roles."""
        await super().init_role_assignment()
        services.make_automation_an_admin(self.db)
        services.give_admins_the_cleanup(self.db)

    def init_tornado_settings(self) -> None:
        """Have the way the hub is used decide who may make a workspace."""
        is_https = self.hub_settings.public_url.startswith("https://")
        self.tornado_settings = tornado_settings(self.tornado_settings, is_https=is_https)
        super().init_tornado_settings()
        self.tornado_settings["named_server_limit_per_user"] = modes.named_server_limit(
            self.context, self.named_server_limit_per_user
        )

    def init_handlers(self) -> None:
        """Put our handlers before JupyterHub's."""
        super().init_handlers()
        ours = [(r"/health", HealthHandler), *authorize_handlers(), *rest_handlers(), *page_handlers()]
        self.handlers[:0] = self.add_url_prefix(self.hub_prefix, ours)

    async def start(self) -> None:  # type: ignore[override]
        """Begin to serve."""
        self.context.bus.run(self.context.nodes.run())
        self.context.bus.run(Watch(self.context).run())
        await super().start()
        log.info("service.started", http=self.hub_settings.target_url)

    async def start_service(self, service_name: str, service: Service, ssl_context: Any = None) -> bool:
        """Start a managed service; one that runs by itself is not waited for, it may well be waiting for us."""
        if service.managed:
            return bool(await super().start_service(service_name, service, ssl_context))
        return True

    async def cleanup(self) -> None:
        """Close the bus after everything else, but never wait long for it."""
        await super().cleanup()
        if hasattr(self, "context"):
            with suppress(TimeoutError):
                await asyncio.wait_for(self.context.bus.close(), _CLOSED_WITHIN)
        log.info("service.ended")

    def _configure_logging(self) -> None:
        """traitlets would add a handler of its own form."""


def main() -> None:
    """Run the hub until SIGTERM or SIGINT."""
    settings = configuration.load(HubSettings)
    configure_logging("hub", level=settings.log_level, style=settings.log_format)
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    MLHub.instance(hub_settings=settings)
    MLHub.launch_instance()


def _said_by(error: Exception, file: Path) -> str:
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).name == file.name
    ]
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {error}"
