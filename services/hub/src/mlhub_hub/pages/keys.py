"""The SSH keys of the one who looks."""

from dataclasses import dataclass
from datetime import datetime

from tornado import web

from mlhub_hub.auth import keys, ssh_keys
from mlhub_hub.auth.announce import announce
from mlhub_hub.auth.key_projection import wake_projection
from mlhub_hub.auth.ssh_keys import KeyRefused
from mlhub_hub.pages.base import PageHandler
from mlhub_shared.contracts.events import EventKind


@dataclass(frozen=True)
class KeyRow:
    """One key on the page."""

    label: str
    kind: str
    fingerprint: str
    added_at: datetime
    last_used_at: datetime | None
    last_used_from: str | None


class SshKeysPage(PageHandler):
    """List, add, remove."""

    @web.authenticated
    async def get(self) -> None:
        """The list and the form."""
        await self._show()

    @web.authenticated
    async def post(self) -> None:
        """Add or remove."""
        if self.form_value("action") == "remove":
            self._remove()
        else:
            try:
                self._add()
            except KeyRefused as error:
                self.set_status(400)
                await self._show(error=str(error))
                return
        self.redirect(self.page_url("ssh-keys"))

    def _add(self) -> None:
        name = self.current_user.name
        key = ssh_keys.parse(self._sent())
        row = keys.add_key(self.db, name, key, label=self.form_value("label"), now=self.context.clock())
        wake_projection(self.settings)
        announce(self.settings, EventKind.SSH_KEY_ADDED, name, by=name, fingerprint=row.fingerprint, label=row.label)

    def _sent(self) -> str:
        """What was pasted, or the file that was chosen."""
        files = self.request.files.get("key_file", [])
        chosen = files[0].body[: 2 * ssh_keys.MAX_BYTES].decode("utf-8", "replace") if files else ""
        return self.form_value("public_key") or chosen

    def _remove(self) -> None:
        name, fingerprint = self.current_user.name, self.form_value("fingerprint")
        if keys.remove_key(self.db, name, fingerprint):
            wake_projection(self.settings)
            announce(self.settings, EventKind.SSH_KEY_REMOVED, name, by=name, fingerprint=fingerprint)

    async def _show(self, error: str = "") -> None:
        # A private key is not sent back, so that it stays in no page.
        sent = self.form_value("public_key") if error else ""
        await self.show(
            "ssh_keys.html",
            rows=[
                KeyRow(
                    label=row.label,
                    kind=ssh_keys.kind_of(row.public_key),
                    fingerprint=row.fingerprint,
                    added_at=row.added_at,
                    last_used_at=row.last_used_at,
                    last_used_from=row.last_used_from,
                )
                for row in keys.keys_of(self.db, self.current_user.name)
            ],
            error=error,
            label=self.form_value("label"),
            public_key="" if "PRIVATE" in sent else sent,
            action=self.page_url("ssh-keys"),
            limit=ssh_keys.KEYS_PER_USER,
        )
