"""A client of a hub's REST API, ours or the stock one."""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

import aiohttp


class HubClient:
    """Does what automation does: makes users, starts and stops their servers."""

    def __init__(self, url: str, token: str) -> None:
        self._api, self._token = f"{url}/hub/api", token
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"token {self._token}"},
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=300),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("enter the client's context first")
        return self._session

    async def create_users(self, names: Iterable[str]) -> None:
        """Make users that may log in."""
        async with self.session.post(f"{self._api}/users", json={"usernames": list(names)}) as response:
            await _expect(response, 201)

    async def new_token(self, user: str) -> str:
        """Make a token with all rights of a user."""
        async with self.session.post(f"{self._api}/users/{user}/tokens", json={"expires_in": 3600}) as response:
            await _expect(response, 201)
            return str((await response.json())["token"])

    async def spawn(self, user: str, server: str = "", options: Mapping[str, object] | None = None) -> None:
        """Start a user's server and wait until it is ready."""
        async with self.session.post(self._server(user, server), json=dict(options or {})) as response:
            await _expect(response, 201, 202)
        if response.status == 202:
            await self._until_ready(user, server)

    async def stop(self, user: str) -> None:
        """Stop a user's server and wait until it is gone."""
        async with self.session.delete(f"{self._api}/users/{user}/server") as response:
            await _expect(response, 202, 204)
        if response.status == 202:
            async with asyncio.timeout(60):
                while await self.server(user) is not None:  # noqa: ASYNC110  (the API has no other way)
                    await asyncio.sleep(0.1)

    async def remove(self, user: str, server: str) -> None:
        """Ask for the end of a named server and of all it had."""
        async with self.session.delete(self._server(user, server), json={"remove": True}) as response:
            await _expect(response, 202, 204)

    async def delete_user(self, user: str) -> None:
        """Ask for the end of a user and of all he had."""
        async with self.session.delete(f"{self._api}/users/{user}") as response:
            await _expect(response, 204)

    async def server(self, user: str) -> object | None:
        """What the hub says of a user's server; None if there is none."""
        async with self.session.get(f"{self._api}/users/{user}") as response:
            await _expect(response, 200)
            servers: dict[str, object] = (await response.json())["servers"]
        return servers.get("")

    async def ready_servers(self) -> int:
        """How many users have a server that is ready."""
        found, offset = 0, 0
        while True:
            query = {"state": "ready", "offset": str(offset), "limit": "200"}
            async with self.session.get(f"{self._api}/users", params=query) as response:
                await _expect(response, 200)
                page: Sequence[object] = await response.json()
            found, offset = found + len(page), offset + len(page)
            if len(page) < 200:
                return found

    def _server(self, user: str, server: str) -> str:
        return f"{self._api}/users/{user}/" + (f"servers/{server}" if server else "server")

    async def _until_ready(self, user: str, server: str) -> None:
        async with self.session.get(f"{self._server(user, server)}/progress") as response:
            await _expect(response, 200)
            async for line in response.content:
                if not line.startswith(b"data:"):
                    continue
                event = json.loads(line.removeprefix(b"data:"))
                if event.get("ready"):
                    return
                if event.get("failed"):
                    raise RuntimeError(f"{user}'s server {server} failed: {event}")
        raise RuntimeError(f"nothing more was heard of {user}'s server {server}")


async def _expect(response: aiohttp.ClientResponse, *statuses: int) -> None:
    if response.status not in statuses:
        raise RuntimeError(f"{response.method} {response.url}: {response.status} {(await response.text())[:300]}")
