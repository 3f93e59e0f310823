"""The secret values of a workspace: from the request straight to the bucket that only its worker reads."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping

from mlhub_shared.bus import Bucket
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import WorkspaceSecrets
from mlhub_shared.errors import Permanent


class SecretValuesMissing(Permanent):
    """A workspace names secrets whose values nobody knows."""


class SecretValues:
    """Holds values in memory from the request that brought them until they lie in the bucket."""

    def __init__(self, bucket: Bucket[WorkspaceSecrets]) -> None:
        self._bucket = bucket
        self._held: dict[str, dict[str, str]] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def hold(self, workspace: WorkspaceId, values: Mapping[str, str]) -> None:
        """Take values that a request brought."""
        if values:
            self._held[workspace.name] = self.held(workspace) | dict(values)

    def held(self, workspace: WorkspaceId) -> dict[str, str]:
        """The values that do not lie in the bucket yet."""
        return self._held.get(workspace.name, {})

    def drop(self, workspace: WorkspaceId) -> None:
        """Forget the values of a request that was refused."""
        self._held.pop(workspace.name, None)

    async def keep(self, workspace: WorkspaceId) -> None:
        """Store what is held, for a workspace that is not started now."""
        async with self._locks[workspace.name]:
            held = dict(self.held(workspace))
            if not held:
                return
            stored = await self._stored(workspace)
            await self._bucket.put(workspace.name, stored.model_copy(update={"secret_env": stored.secret_env | held}))
            self._stored_now(workspace, held)

    async def write(
        self, workspace: WorkspaceId, *, generation: int, env: dict[str, str], names: Iterable[str]
    ) -> None:
        """Store what a start needs: the hub's environment, and of the user's values those that are still named."""
        async with self._locks[workspace.name]:
            held = dict(self.held(workspace))
            names = set(names)
            stored = (await self._stored(workspace)).secret_env if names else {}
            values = {name: value for name, value in (stored | held).items() if name in names}
            if missing := sorted(names - values.keys()):
                raise SecretValuesMissing(f"secret_env: the value of {', '.join(missing)} is not known, enter it again")
            await self._bucket.put(workspace.name, WorkspaceSecrets(generation=generation, env=env, secret_env=values))
            self._stored_now(workspace, held)

    async def move(self, old: WorkspaceId, new: WorkspaceId) -> None:
        """Follow a workspace that was renamed before it ever ran."""
        self.hold(new, (await self._stored(old)).secret_env | self.held(old))
        await self.keep(new)
        await self.forget(old)

    async def forget(self, workspace: WorkspaceId) -> None:
        """Remove everything of a workspace."""
        self.drop(workspace)
        async with self._locks[workspace.name]:
            if await self._bucket.get(workspace.name) is not None:
                await self._bucket.delete(workspace.name)
        self._locks.pop(workspace.name, None)

    async def _stored(self, workspace: WorkspaceId) -> WorkspaceSecrets:
        entry = await self._bucket.get(workspace.name)
        return entry.value if entry else WorkspaceSecrets(generation=1)

    def _stored_now(self, workspace: WorkspaceId, values: dict[str, str]) -> None:
        left = {name: value for name, value in self.held(workspace).items() if values.get(name) != value}
        if left:
            self._held[workspace.name] = left
        else:
            self._held.pop(workspace.name, None)
