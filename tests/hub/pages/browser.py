"""A real browser, and pictures of what it shows."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

PICTURES = Path(__file__).parents[3] / "artefacts" / "screenshots"
WIDE, NARROW = (1280, 900), (400, 860)

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str | None:
    """The browser's path; None where there is none."""
    return shutil.which(os.environ.get("CHROMIUM", "chromium"))


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """One Chromium."""
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=chromium(), args=_ARGUMENTS)
        try:
            yield started
        finally:
            await started.close()


class Visitor:
    """Somebody in front of a browser; what its console complains about is kept."""

    def __init__(self, context: BrowserContext, page: Page, url: str) -> None:
        self.context, self.page, self.url = context, page, url
        self.complaints: list[str] = []
        page.on("console", lambda line: self.complaints.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    async def go(self, path: str) -> None:
        await self.page.goto(f"{self.url}{path}")

    async def login(self, name: str, password: str) -> None:
        await self.go("/hub/login")
        await self.page.get_by_label("Name").fill(name)
        await self.page.get_by_label("Password", exact=True).fill(password)
        await self.page.get_by_role("button", name="Log in").click()
        await self.page.wait_for_url("**/hub/home")

    async def picture(self, name: str, *, themes: tuple[str, ...] = ("light", "dark")) -> None:
        """The page as it is now: light and dark, wide and narrow."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        for theme in themes:
            await self.page.evaluate("theme => document.documentElement.setAttribute('data-bs-theme', theme)", theme)
            for label, (width, height) in (("wide", WIDE), ("narrow", NARROW)):
                await self.page.set_viewport_size({"width": width, "height": height})
                await self.page.wait_for_timeout(50)
                await self.page.screenshot(path=PICTURES / f"{name}-{theme}-{label}.png", full_page=True)
        await self.page.set_viewport_size({"width": WIDE[0], "height": WIDE[1]})


@asynccontextmanager
async def visitor(browser: Browser, url: str) -> AsyncIterator[Visitor]:
    """A fresh session."""
    context = await browser.new_context(viewport={"width": WIDE[0], "height": WIDE[1]})
    try:
        yield Visitor(context, await context.new_page(), url)
    finally:
        await context.close()
