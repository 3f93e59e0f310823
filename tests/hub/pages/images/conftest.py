"""A hub whose workspaces are containers, and people in front of it: plainly, and in a real browser."""

import re
from collections.abc import AsyncIterator
from html import unescape

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.hub.conftest import Stage, make_stage
from tests.hub.images import images_environment
from tests.hub.pages.browser import Visitor, browser, chromium, visitor
from tests.hub.pages.conftest import PASSWORD, approved
from tests.hub.web import WebSession

needs_browser = pytest.mark.skipif(chromium() is None, reason="needs chromium on PATH")

GPUS = {"gpus": ("0", "1", "2", "3"), "gpus_free": ("1", "3"), "labels": {"zone": "b", "gpu": "a100"}}
SIZE = {"cpu_total": 16, "mem_total": 64 * 1024**3, "cpu_granted": 5, "mem_granted": 12 * 1024**3}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("hub")
    async for made in make_stage(folder, **images_environment(folder)):
        made.worker.say(backend="docker", limits="Limits of CPU and memory are kept by the engine.", **SIZE, **GPUS)
        yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def alice(stage: Stage, admin: WebSession) -> AsyncIterator[WebSession]:
    session = await approved(stage, admin, "alice")
    yield session
    await session.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def chrome() -> AsyncIterator[Browser]:
    async with browser() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def person(stage: Stage, alice: WebSession, chrome: Browser) -> AsyncIterator[Visitor]:
    async with visitor(chrome, stage.hub.url) as someone:
        await someone.login("alice", PASSWORD)
        someone.complaints.clear()
        yield someone
        assert not someone.complaints


def text(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())
