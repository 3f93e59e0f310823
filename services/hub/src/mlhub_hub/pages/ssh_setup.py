"""The one-time set-up of a computer: a token for somebody who is logged in, and the script that uses it up."""

from typing import Any

from jupyterhub.user import User
from tornado import web

from mlhub_hub.auth import ssh_keys, ssh_setups
from mlhub_hub.auth.announce import announce
from mlhub_hub.auth.key_projection import wake_projection
from mlhub_hub.auth.ssh_keys import KeyRefused
from mlhub_hub.auth.tables import SshSetup
from mlhub_hub.pages.base import PageHandler
from mlhub_hub.pages.setup_script import Address, address_of, download, is_host, script
from mlhub_hub.pages.ssh import SshInstructions, instructions
from mlhub_hub.pages.view import links_of
from mlhub_hub.pages.workspaces import server_of
from mlhub_shared.contracts.events import EventKind

_GONE = "This link was used already, or its time is over. Make a new one on the page of the workspace."
_NEEDS_TLS = "Over this address anybody on the way could change the script: open the hub by https."


class _Setup(PageHandler):
    def address(self) -> Address:
        """How whoever asks reaches the hub; 400 where that can't be told."""
        address = address_of(self.request.protocol, self.request.host, pin=self.context.tls_pin())
        if address is None:
            raise web.HTTPError(400, "The hub can't tell by which address you have come.")
        return address

    def lines_for(self, owner: str, server: str) -> SshInstructions:
        """What OpenSSH is to know of a workspace; `host` and `port` of the query where the usual ones are not right."""
        settings = self.context.settings
        host = self.get_query_argument("host", "") or self.ssh_host
        port = self.get_query_argument("port", "") or str(settings.ssh_port)
        if not is_host(host) or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65536:
            raise web.HTTPError(400, "host must be a host's name or address, and port a number up to 65535.")
        workspace = self.context.workspace(owner, server)
        ssh = instructions(workspace, host=host, port=int(port), host_key=settings.ssh_host_key)
        if ssh.config is None:
            raise web.HTTPError(400, "OpenSSH's configuration can't hold the name of this workspace: use the command.")
        return ssh


class SshSetupPage(_Setup):
    """Makes a token, and shows the one line that uses it; only once, so that it is in no history."""

    @web.authenticated
    async def post(self) -> None:
        """Make it for the one who asks: what it registers is a key of his, whoever's the workspace is."""
        owner, name = self.user_named(self.form_value("user")), self.form_value("server")
        if name not in {"", *owner.orm_spawners}:
            raise web.HTTPError(404, "There is no such workspace.")
        ssh, address = self.lines_for(owner.name, name), self.address()
        links = links_of(server_of(owner, name), hub_url=self.hub.base_url, base_url=self.settings["base_url"])
        await self.show(
            "dialog_page.html",
            inside="_ssh_setup.html",
            server=server_of(owner, name),
            owner=owner,
            home_url=self.home_url(owner),
            ssh=ssh,
            command=self._command(owner, name, address) if address.is_secure else None,
            is_encrypted=address.is_encrypted,
            minutes=round(ssh_setups.LIFETIME.total_seconds() / 60),
            back_url=links.ssh,
        )

    def _command(self, owner: User, server: str, address: Address) -> str:
        token = ssh_setups.make_token(
            self.db, self.current_user.name, owner=owner.name, server=server, now=self.context.clock()
        )
        return download(address, f"{address.url}{self.page_url(f'ssh-setup/{token}/script')}")


class _WithToken(_Setup):
    def check_xsrf_cookie(self) -> None:
        """No browser's session counts here, only the token."""

    def setup_of(self, token: str) -> SshSetup:
        """What the token is for; 404 if for nothing."""
        setup = ssh_setups.find(self.db, token, now=self.context.clock())
        if setup is None:
            raise web.HTTPError(404, _GONE)
        if not self.address().is_secure:
            raise web.HTTPError(403, _NEEDS_TLS)
        return setup

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """A sentence: no browser reads it."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        said = error.get_message() if isinstance(error, web.HTTPError) else ""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{said or self._reason}\n")


class SshSetupScript(_WithToken):
    """`/ssh-setup/TOKEN/script[?host=&port=]`: does not use the token up."""

    async def get(self, token: str) -> None:
        """The script for this token."""
        setup, address = self.setup_of(token), self.address()
        ssh = self.lines_for(setup.owner, setup.server)
        given = {key: value for key in ("host", "port") if (value := self.get_query_argument(key, ""))}
        url = f"{address.url}{self.page_url(f'ssh-setup/{token}', **given)}"
        key_name = f"mlhub_{self.context.settings.hub_name}_ed25519"
        self.set_header("Content-Type", "text/x-shellscript; charset=utf-8")
        self.finish(script(ssh, address=address, url=url, key_name=key_name))


class SshSetupKey(_WithToken):
    """`/ssh-setup/TOKEN[?host=&port=]`: takes a public key, once."""

    async def post(self, token: str) -> None:
        """Register the key of the body; answers with the lines for OpenSSH."""
        setup, now = self.setup_of(token), self.context.clock()
        user, ssh = setup.user, self.lines_for(setup.owner, setup.server)
        try:
            key = ssh_keys.parse(self.request.body.decode("utf-8", "replace"))
            is_new = ssh_setups.redeem(self.db, setup, key, now=now)
        except KeyRefused as error:
            raise web.HTTPError(400, str(error)) from None
        if is_new:
            wake_projection(self.settings)
            client = str(self.request.remote_ip)
            announce(
                self.settings,
                EventKind.SSH_KEY_ADDED,
                user,
                by=user,
                fingerprint=key.fingerprint,
                label=key.comment,
                how="setup",
                client=client,
            )
        self.set_status(201 if is_new else 200)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish("\n".join(filter(None, [ssh.config, ssh.known_hosts])) + "\n")
