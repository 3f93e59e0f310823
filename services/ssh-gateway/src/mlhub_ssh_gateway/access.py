"""Who gets into which workspace."""

from dataclasses import dataclass

import asyncssh
import structlog

from mlhub_shared.bus import Table
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.scopes import may_access
from mlhub_shared.contracts.services import SshKey, ssh_key_key
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.errors import MLHubError
from mlhub_ssh_gateway import addresses
from mlhub_ssh_gateway.hub_api import HubApi
from mlhub_ssh_gateway.keys import public_line

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Login:
    """Somebody who proved who they are, and the workspace they may enter."""

    requester: str
    """`user:NAME` or `service:NAME`."""
    workspace: WorkspaceId
    method: str
    """`key` or `token`."""
    fingerprint: str | None = None


class Doorkeeper:
    """Decides, from the table of keys as long as it can, and never tells why not."""

    def __init__(self, hub: str, keys: Table[SshKey], records: Table[WorkspaceRecord], api: HubApi) -> None:
        self._hub, self._keys, self._records, self._api = hub, keys, records, api

    async def by_key(self, login_name: str, key: asyncssh.SSHKey) -> Login | None:
        """The login of whoever holds this key; None if they may not enter."""
        fingerprint = key.get_fingerprint()
        known = self._keys.value(ssh_key_key(fingerprint))
        if known is None or known.public_key.split()[:2] != public_line(key).split():
            return None
        try:
            workspace = await self._target(login_name, known.user)
            if workspace is None or not await self._may_enter(known.user, workspace):
                return None
        except MLHubError as error:
            log.warning("login.undecided", user=known.user, login_name=login_name, error=str(error))
            return None
        return Login(f"user:{known.user}", workspace, "key", fingerprint)

    async def by_token(self, login_name: str, token: str) -> Login | None:
        """The login of whoever holds this API token of the hub; None if its scopes do not reach the workspace."""
        try:
            identity = await self._api.whose(token)
            if identity is None:
                return None
            workspace = await self._target(login_name, identity.name if identity.kind == "user" else None)
        except MLHubError as error:
            log.warning("login.undecided", login_name=login_name, error=str(error))
            return None
        if workspace is None or not may_access(identity.scopes, workspace):
            return None
        return Login(identity.requester, workspace, "token")

    def is_still_in(self, login: Login) -> bool:
        """Whether the key of somebody who came in may still open the door; of a token only the hub knows."""
        if login.fingerprint is None:
            return True
        known = self._keys.value(ssh_key_key(login.fingerprint))
        return known is not None and login.requester == f"user:{known.user}"

    async def _target(self, login_name: str, user: str | None) -> WorkspaceId | None:
        found = addresses.readings(self._hub, login_name)
        if not found:
            return None
        if user is not None and (mine := addresses.own(found, user)) is not None:
            return mine
        if (
            there := addresses.existing(found, lambda workspace: self._records.get(workspace.name) is not None)
        ) is not None:
            return there
        if len(found) == 1 or await self._api.is_user(found[0].user):
            return found[0]
        return found[1]

    async def _may_enter(self, user: str, workspace: WorkspaceId) -> bool:
        # Owners first and without a question: they get in while the hub is away.
        return (
            workspace.user == user
            or await self._api.is_admin(user)
            or may_access(await self._api.shared_scopes(user, workspace), workspace)
        )
