"""The first hour of a team, in a real browser."""

import re
from collections.abc import Iterator

import pytest
from playwright.async_api import Page, expect

from tests.hub.pages.browser import PICTURES, Visitor, browser, chromium, visitor
from tests.support.stack import Stack, running_stack

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.skipif(chromium() is None, reason="there is no Chromium: apt-get install chromium"),
]

PASSWORD = "correct horse battery staple"
LAB_WITHIN = 90_000
"""Milliseconds until JupyterLab is drawn: it is large, and the machine may be busy."""


@pytest.fixture(scope="module")
def open_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A hub that nobody has logged in to."""
    with running_stack(tmp_path_factory.mktemp("open"), MLHUB_ADMIN_PASSWORD="") as stack:
        yield stack


async def test_from_the_printed_link_to_a_cell_that_prints(open_stack: Stack) -> None:
    async with browser() as chrome, visitor(chrome, open_stack.url) as admin, visitor(chrome, open_stack.url) as bea:
        await make_first_admin(admin, open_stack)
        await sign_up(bea, "bea")
        await try_to_log_in(bea, "bea")
        await expect(bea.page.get_by_role("alert")).to_contain_text("approval")
        await approve(admin, "bea")
        await bea.login("bea", PASSWORD)
        await start_default(bea)
        await make_named(bea, "gpu1")
        await run_a_cell(bea, "/user/bea/gpu1/lab")
        await bea.go("/hub/home")
        await expect(bea.page.get_by_text("Ready", exact=True)).to_have_count(2)
        await bea.picture("system-two-workspaces", themes=("light",))


async def make_first_admin(admin: Visitor, stack: Stack) -> None:
    link = re.search(r"http://\S+/hub/signup\?token=\S+", stack.output.read_text())
    assert link, stack.output.read_text()
    await admin.page.goto(link[0])
    await fill_passwords(admin.page)
    await admin.page.get_by_role("button", name="Create the account").click()
    await expect(admin.page.get_by_role("heading", name="Your account is ready")).to_be_visible()
    await admin.login("admin", PASSWORD)
    await admin.page.goto(link[0])
    await expect(admin.page.get_by_text("This link was used already")).to_be_visible()


async def sign_up(person: Visitor, name: str) -> None:
    await person.go("/hub/signup")
    await person.page.get_by_label("Name").fill(name)
    await fill_passwords(person.page)
    await person.page.get_by_role("button", name="Sign up").click()
    await expect(person.page.get_by_role("heading", name="Your request is in")).to_be_visible()


async def fill_passwords(page: Page) -> None:
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_label("Password again").fill(PASSWORD)


async def try_to_log_in(person: Visitor, name: str) -> None:
    await person.go("/hub/login")
    await person.page.get_by_label("Name").fill(name)
    await person.page.get_by_label("Password", exact=True).fill(PASSWORD)
    await person.page.get_by_role("button", name="Log in").click()


async def approve(admin: Visitor, name: str) -> None:
    await admin.go("/hub/approvals")
    await admin.page.get_by_role("button", name=f"Approve {name}").click()
    await expect(admin.page.get_by_text("Nobody waits.")).to_be_visible()


async def start_default(person: Visitor) -> None:
    """From the button to the workspace, which opens by itself."""
    page = person.page
    await page.get_by_role("button", name=re.compile("^Start")).click()
    await expect(page.get_by_role("heading", name=re.compile("^Starting"))).to_be_visible()
    await page.wait_for_url("**/user/bea/**", timeout=LAB_WITHIN, wait_until="commit")
    await person.go("/hub/home")
    await expect(page.get_by_text("Ready", exact=True)).to_have_count(1)


async def make_named(person: Visitor, name: str) -> None:
    page = person.page
    await page.get_by_role("link", name="New workspace").click()
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_label("Days to live").fill("1")
    await page.locator("#options-form button[type=submit]").click()
    await expect(page.get_by_role("heading", name=f"Starting {name}")).to_be_visible()
    await person.picture("system-starting", themes=("light",))
    await page.wait_for_url(f"**/user/bea/{name}/**", timeout=LAB_WITHIN, wait_until="commit")
    await person.go("/hub/home")
    await expect(page.get_by_text("Ready", exact=True)).to_have_count(2)
    await expect(page.get_by_text("Expires", exact=True)).to_be_visible()


async def run_a_cell(person: Visitor, address: str) -> None:
    """JupyterLab as it is, by mouse and keyboard."""
    page = person.page
    await person.go(address)
    card = page.locator(".jp-LauncherCard[data-category=Notebook]").first
    await card.click(timeout=LAB_WITHIN)
    cell = page.locator(".jp-Notebook .jp-CodeCell .cm-content").first
    # What is typed before the kernel is there gets lost now and then.
    await expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=LAB_WITHIN)
    await cell.click()
    await page.keyboard.type("print(6 * 7)")
    await expect(cell).to_have_text("print(6 * 7)")
    await page.keyboard.press("Shift+Enter")
    await expect(page.locator(".jp-OutputArea-output").first).to_have_text("42\n", timeout=LAB_WITHIN)
    PICTURES.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=PICTURES / "system-jupyterlab.png")
