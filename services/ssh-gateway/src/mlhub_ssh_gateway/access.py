"""Who gets into which workspace."""

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import asyncssh
from pydantic import SecretStr

from mlhub_shared.bus import Table
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.scopes import may_access
from mlhub_shared.contracts.services import SshKey, ssh_key_key
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_ssh_gateway import addresses
from mlhub_ssh_gateway.hub_api import HubApi
from mlhub_ssh_gateway.keys import public_line
from mlhub_ssh_gateway.own_keys import LOGIN_NAME, OwnKeys

KEY, TOKEN, WORKSPACE_KEY = "key", "token", "workspace-key"
"""How somebody logs in: by a key of his own, by a token of the hub, by the key that a workspace made for itself."""


@dataclass(frozen=True)
class Login:
    """Somebody who proved who they are, and the workspace they may enter.

    Several workspaces may show one key; which of them a login by it is for is known with its first connection.
    """

    requester: str
    """`user:NAME` or `service:NAME`."""
    workspace: WorkspaceId
    method: str
    fingerprint: str | None = None
    """Of the key."""
    token: SecretStr | None = field(default=None, repr=False)
    """Kept to ask the hub about again."""

    @property
    def digest(self) -> str:
        """Tells it from others, and does not give the token away."""
        token = self.token.get_secret_value() if self.token else None
        told = repr((self.requester, self.workspace.name, self.method, self.fingerprint, token))
        return hashlib.sha256(told.encode()).hexdigest()


@dataclass(frozen=True)
class Denial:
    """Somebody who may not enter there, if he proves to be who he says."""

    requester: str
    workspace: WorkspaceId | None
    """None: there is none of that name."""
    method: str
    fingerprint: str | None = None


class Doorkeeper:
    """Decides, from the table of keys as long as it can; MLHubError where the hub would have to be asked, and can't."""

    def __init__(
        self, hub: str, keys: Table[SshKey], records: Table[WorkspaceRecord], api: HubApi, own_keys: OwnKeys
    ) -> None:
        self._hub, self._keys, self._records, self._api, self._own_keys = hub, keys, records, api, own_keys

    def knows(self, login_name: str, key: asyncssh.SSHKey) -> bool:
        """Whether this key is anybody's."""
        return self._holder(key) is not None or (login_name == LOGIN_NAME and bool(self._own_keys.showing(key)))

    async def by_key(self, login_name: str, key: asyncssh.SSHKey) -> Login | Denial | None:
        """What whoever holds this key gets; None if it is nobody's."""
        fingerprint, user = key.get_fingerprint(), self._holder(key)
        denial = None
        if user is not None:
            workspace = await self._target(login_name, user)
            if workspace is not None and await self._may_enter(user, workspace):
                return Login(f"user:{user}", workspace, KEY, fingerprint)
            denial = Denial(f"user:{user}", self._known(workspace), KEY, fingerprint)
        # Last: a workspace may show whatever it likes, and must not get in the way of whose key it is.
        if login_name == LOGIN_NAME and (shown := self._own_keys.showing(key)):
            return Login(f"user:{shown[0].user}", shown[0], WORKSPACE_KEY, fingerprint)
        return denial

    async def by_token(self, login_name: str, token: str) -> Login | Denial | None:
        """What whoever holds this API token of the hub gets; None if it is nobody's."""
        identity = await self._api.whose(token)
        if identity is None:
            return None
        workspace = await self._target(login_name, identity.name if identity.kind == "user" else None)
        if workspace is not None and may_access(identity.scopes, workspace):
            return Login(identity.requester, workspace, TOKEN, token=SecretStr(token))
        return Denial(identity.requester, self._known(workspace), TOKEN)

    def existing(self, login_name: str) -> WorkspaceId | None:
        """The first workspace that a login name can mean and that there is."""
        return addresses.existing(addresses.readings(self._hub, login_name), self._exists)

    def has_key(self, login: Login) -> bool:
        """Whether the key of somebody who came in is still known; a token's holder has none."""
        if login.fingerprint is None:
            return True
        if login.method == WORKSPACE_KEY:
            return self._own_keys.shows(login.workspace, login.fingerprint)
        known = self._keys.value(ssh_key_key(login.fingerprint))
        return known is not None and login.requester == f"user:{known.user}"

    def question(self, login: Login) -> Hashable | None:
        """What only the hub knows of somebody who came in, the same of all whom one answer is about; None: nothing."""
        if login.token is not None:
            return login.token
        return (login.requester, login.workspace) if login.requester != f"user:{login.workspace.user}" else None

    async def put_out(self, logins: Sequence[Login]) -> list[Login]:
        """Those whom the hub no longer lets in, of some of one `question`."""
        first = logins[0]
        if first.token is None:
            may_stay = await self._may_enter(first.requester.removeprefix("user:"), first.workspace)
            return [] if may_stay else list(logins)
        identity = await self._api.whose(first.token.get_secret_value())
        return [
            login
            for login in logins
            if identity is None
            or identity.requester != login.requester
            or not may_access(identity.scopes, login.workspace)
        ]

    def _holder(self, key: asyncssh.SSHKey) -> str | None:
        known = self._keys.value(ssh_key_key(key.get_fingerprint()))
        if known is None or known.public_key.split()[:2] != public_line(key).split():
            return None
        return known.user

    def _known(self, workspace: WorkspaceId | None) -> WorkspaceId | None:
        return workspace if workspace is not None and self._exists(workspace) else None

    def _exists(self, workspace: WorkspaceId) -> bool:
        return self._records.get(workspace.name) is not None

    async def _target(self, login_name: str, user: str | None) -> WorkspaceId | None:
        found = addresses.readings(self._hub, login_name)
        if not found:
            return None
        if user is not None and (mine := addresses.own(found, user)) is not None:
            return mine
        if (there := addresses.existing(found, self._exists)) is not None:
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
