"""A container is killed from outside: how soon the hub's API and its page say so."""

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import aiohttp

from tests.bench.bench import Bench
from tests.bench.engine.hubs import OPTIONS, ours
from tests.bench.engine.lab import Lab, lab
from tests.bench.report import at_most
from tests.bench.rest import HubClient

NAME = "docker-death"
_USER = "admin"
_FORM_TOKEN = re.compile(r'name="_xsrf"[^>]*value="([^"]+)"')
_STATUS = re.compile(r'class="ml-status">.*?</span>\s*([^<]*?)\s*</p>', re.DOTALL)
_UP, _DOWN = {"Ready"}, {"Stopped", "Failed"}
"""What the page says then."""
_WITHIN = 60


async def measure(bench: Bench) -> None:
    """`docker kill`, again and again; each time somebody looks at the page, and a program asks the API."""
    api, page = [], []
    async with lab(bench) as one, ours(bench, one) as deployment:
        await deployment.start_proxy()
        await deployment.start_worker()
        await deployment.start_hub()
        async with deployment.client() as client, _browser(deployment.hub_url, deployment.token) as session:
            for _ in range(bench.amount(2 * bench.runs, 2)):
                await client.spawn(_USER, options=OPTIONS)
                seen = await _death(one, client, session, deployment.hub_url)
                api.append(seen[0] * 1000)
                page.append(seen[1] * 1000)
    bench.report.add(NAME, "docker kill to the API's answer", "ms", api, at_most(1000))
    bench.report.add(NAME, "docker kill to the word on the page", "ms", page, at_most(1000))


async def _death(one: Lab, client: HubClient, session: aiohttp.ClientSession, hub_url: str) -> tuple[float, float]:
    """Seconds until the API and the page know."""
    async with aclosing(_words(session, hub_url)) as words, asyncio.timeout(_WITHIN):
        await _until_word(words, _UP)
        running = await one.docker.containers.list(
            filters={"label": [f"mlhub.user={_USER}", f"mlhub.origin={one.name}"]}
        )
        started = time.monotonic()
        await running[0].kill(signal="KILL")

        async def api() -> float:
            while await client.server(_USER) is not None:  # noqa: ASYNC110  (the API has no other way)
                await asyncio.sleep(0.01)
            return time.monotonic() - started

        async def page() -> float:
            await _until_word(words, _DOWN)
            return time.monotonic() - started

        return await asyncio.gather(api(), page())


async def _until_word(words: AsyncIterator[str], expected: set[str]) -> None:
    async for word in words:
        if word in expected:
            return
    raise RuntimeError("the page's events have ended")


async def _words(session: aiohttp.ClientSession, hub_url: str) -> AsyncGenerator[str, None]:
    """What the page says of the workspace, at first and at every change."""
    async with session.get(f"{hub_url}/hub/mlhub/events") as response:
        response.raise_for_status()
        async for line in response.content:
            if line.startswith(b"data:"):
                for row in json.loads(line.removeprefix(b"data:")).get("rows", {}).values():
                    for word in _STATUS.findall(row):
                        yield word


@asynccontextmanager
async def _browser(hub_url: str, password: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Somebody who has logged in."""
    headers = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin"}
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(headers=headers, cookie_jar=jar) as session:
        async with session.get(f"{hub_url}/hub/login") as response:
            token = _FORM_TOKEN.search(await response.text())
        if token is None:
            raise RuntimeError(f"there is no form on {response.url}")
        form = {"username": _USER, "password": password, "_xsrf": token[1]}
        async with session.post(f"{hub_url}/hub/login", data=form) as response:
            if response.url.path.endswith("/login"):
                raise RuntimeError(f"{_USER} was not let in: {response.status}")
        yield session
