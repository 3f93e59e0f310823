"""What all pages have in common."""

from typing import Any
from urllib.parse import urlencode

import structlog
from jupyterhub.handlers import BaseHandler
from jupyterhub.user import User
from tornado import web

from mlhub_hub.auth.authenticator import SignUpAuthenticator
from mlhub_hub.context import SETTINGS_KEY, HubContext
from mlhub_hub.logs import shown_path
from mlhub_hub.modes import is_manager
from mlhub_hub.pages.rights import Rights, rights_for
from mlhub_hub.pages.setup_script import address_of, is_loopback

log = structlog.get_logger(__name__)


class PageHandler(BaseHandler):
    """A page of ours: its context, and whom it is about."""

    def set_default_headers(self) -> None:
        """Pages are made for one person at one moment."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Without the query, where tokens come in."""
        if isinstance(value, web.HTTPError):
            log.info("page.refused", path=shown_path(self.request.path), why=str(value))
        else:
            path = shown_path(self.request.path)
            log.error("page.failed", method=self.request.method, path=path, exc_info=(typ, value, tb))

    @property
    def context(self) -> HubContext:
        """The hub's context."""
        context: HubContext = self.settings[SETTINGS_KEY]
        return context

    @property
    def ssh_host(self) -> str:
        """Where people's `ssh` connects to: by what host they have come, where the settings name but this machine."""
        configured = self.context.settings.ssh_host
        address = address_of(self.request.protocol, self.request.host, pin=None)
        is_elsewhere = address is not None and not is_loopback(address.host)
        return address.host if address is not None and is_elsewhere and is_loopback(configured) else configured

    @property
    def accounts_authenticator(self) -> SignUpAuthenticator:
        """Our own authenticator; 404 where another one is configured."""
        authenticator = self.authenticator
        if not isinstance(authenticator, SignUpAuthenticator):
            raise web.HTTPError(404)
        return authenticator

    def rights_over(self, user: User) -> Rights:
        """What the one who asks may do with a user's workspaces."""
        return rights_for(self.context.settings.workspaces, is_admin=is_manager(self, user.name))

    def user_named(self, name: str, *, scope: str = "read:servers") -> User:
        """That user, if the one who asks has the scope over him; 404 otherwise, whether he exists or not."""
        user: User | None = self.find_user(name) if name and self.has_scope(f"{scope}!user={name}") else None
        if user is None:
            raise web.HTTPError(404, "There is no such user, or you may not see him.")
        return user

    def asked_user(self) -> User:
        """Whom the page is about: `?user=` for admins, else the one who asks."""
        return self.user_named(self.get_argument("user", "") or self.current_user.name)

    def page_url(self, path: str, **query: str) -> str:
        """Address of a page of the hub."""
        return f"{self.hub.base_url}{path}" + (f"?{urlencode(query)}" if query else "")

    def home_url(self, user: User) -> str:
        """The list of workspaces with this user's."""
        return self.page_url("home") if user is self.current_user else self.page_url("home", user=user.name)

    async def show(self, template: str, **values: Any) -> None:
        """Render a page and finish."""
        self.finish(await self.render_template(template, **values))

    def form_value(self, name: str, *, strip: bool = True) -> str:
        """One field of a form that was sent."""
        value: str = self.get_body_argument(name, "", strip=strip)
        return value
