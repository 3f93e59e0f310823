"""The dialogs of a workspace; each is a page of its own where there is no JavaScript."""

from enum import StrEnum
from typing import Any

from jupyterhub.user import User
from tornado import web

from mlhub_hub.auth.keys import keys_of
from mlhub_hub.options import starts_on_ssh
from mlhub_hub.pages.base import PageHandler
from mlhub_hub.pages.ssh import instructions
from mlhub_hub.pages.view import links_of
from mlhub_hub.pages.workspaces import server_of, spec_to_come
from mlhub_shared.contracts.policy import Policy
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord, WorkspaceSpec


class Files(StrEnum):
    """What becomes of the files of a workspace that is deleted."""

    NONE = "none"
    """There are none but those that go with every stop."""
    KEPT = "kept"
    """For as long as the policy says."""
    GONE = "gone"


def files_of(record: WorkspaceRecord | None, to_come: WorkspaceSpec | None, policy: Policy) -> Files:
    """What a deletion does to the files; `to_come`: what the next start would give, None where it would be refused."""
    if not policy.images_allowed:
        return Files.GONE
    if not _may_have_files(record, to_come):
        return Files.NONE
    return Files.KEPT if policy.keep_volumes_days else Files.GONE


def _may_have_files(record: WorkspaceRecord | None, to_come: WorkspaceSpec | None) -> bool:
    if record is None:
        return to_come is None or to_come.is_mount_volume
    # A volume stays when a later start does without one, and there is none yet while its workspace is in line.
    return record.has_data or (record.phase.is_active and record.spec.is_mount_volume)


class AboutWorkspace(PageHandler):
    """One of them."""

    template = ""

    @web.authenticated
    async def get(self) -> None:
        """Show it; only its inside with `?fragment=1`."""
        user = self.asked_user()
        name = self.get_argument("server", "")
        if name not in {"", *user.orm_spawners}:
            raise web.HTTPError(404, "There is no such workspace.")
        server = server_of(user, name)
        links = links_of(server, hub_url=self.hub.base_url, base_url=self.settings["base_url"])
        await self.show(
            "dialog_page.html" if not self.get_argument("fragment", "") else self.template,
            inside=self.template,
            server=server,
            links=links,
            owner=user,
            home_url=self.home_url(user),
            **await self.facts(user, name),
        )

    async def facts(self, user: User, server: str) -> dict[str, Any]:
        """What else the template shows."""
        return {}

    def record_of(self, user: User, server: str) -> WorkspaceRecord | None:
        """What its worker last said of it."""
        return self.context.workspaces.value(self.context.workspace(user.name, server).name)


class DeleteDialog(AboutWorkspace):
    """Says what a deletion will hit, and asks once."""

    template = "_delete.html"

    async def facts(self, user: User, server: str) -> dict[str, Any]:
        """Whether it runs, and what becomes of its files."""
        record, policy = self.record_of(user, server), self.context.policy
        to_come = spec_to_come(self.context, user, server)
        files = files_of(record, to_come, policy)
        now = record.spec if record is not None and record.phase.is_active else to_come
        return {
            "is_active": record is not None and record.phase.is_active,
            "files": files,
            "is_from_before": files is not Files.NONE and now is not None and not now.is_mount_volume,
            "days": policy.keep_volumes_days,
        }


class UpdateDialog(AboutWorkspace):
    """Says what an update does, and asks once."""

    template = "_update.html"

    async def facts(self, user: User, server: str) -> dict[str, Any]:
        """Whether it runs, what it is made of, and whether its files stay."""
        record, to_come = self.record_of(user, server), spec_to_come(self.context, user, server)
        return {
            "is_active": record is not None and record.phase.is_active,
            "image": to_come.image if to_come else None,
            "keeps_files": to_come is None or to_come.is_mount_volume,
        }


class SshDialog(AboutWorkspace):
    """The exact command, and what to put where."""

    template = "_ssh.html"

    async def facts(self, user: User, server: str) -> dict[str, Any]:
        """What to type."""
        settings = self.context.settings
        orm_spawner = user.orm_spawners.get(server)
        record = self.record_of(user, server)
        return {
            "starts_on_ssh": starts_on_ssh((orm_spawner.user_options if orm_spawner else None) or {}),
            "can_change": self.rights_over(user).change_options,
            "own_ssh": record is not None and record.phase is Phase.READY and record.spec.own_ssh,
            "ssh_host": self.ssh_host,
            "ssh_port": settings.ssh_port,
            "ssh": instructions(
                self.context.workspace(user.name, server),
                host=self.ssh_host,
                port=settings.ssh_port,
                host_key=settings.ssh_host_key,
            ),
            "keys_url": self.page_url("ssh-keys"),
            "has_key": self.has_ssh_key(),
        }

    def has_ssh_key(self) -> bool:
        """The one who asks could log in with a key."""
        return bool(keys_of(self.db, self.current_user.name))
