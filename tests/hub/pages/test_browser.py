"""The pages in a real browser; the pictures go into `artefacts/screenshots`."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, expect

from mlhub_shared.contracts.workspace import Phase, Reason
from tests.hub.conftest import Stage
from tests.hub.pages.browser import Visitor, browser, chromium, visitor
from tests.hub.pages.conftest import PASSWORD, approved, now
from tests.hub.web import WebSession
from tests.support.hub_process import ADMIN_PASSWORD

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="needs chromium on PATH"),
]

HOSTILE = "ModuleNotFoundError </pre></script><script>document.title = 'owned'</script><img src=x onerror=alert(1)>"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def chrome() -> AsyncIterator[Browser]:
    async with browser() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def alice(stage: Stage, admin: WebSession, chrome: Browser) -> AsyncIterator[Visitor]:
    await (await approved(stage, admin, "alice")).close()
    async with visitor(chrome, stage.hub.url) as someone:
        await someone.login("alice", PASSWORD)
        someone.complaints.clear()
        yield someone
        assert not someone.complaints


def row(someone: Visitor, server: str) -> Locator:
    return someone.page.locator(f"#ws-alice-test-{server}" if server else "#ws-alice-test")


async def have(stage: Stage, server: str, **options: object) -> str:
    """A workspace of alice's that is ready; returns its record's name."""
    body = {"display_name": options.pop("title", server), "user_options": options}
    await stage.api("POST", f"/users/alice/servers/{server}", body)
    await stage.until_ready("alice", server)
    return f"ws-alice-test-{server}"


async def test_who_is_new_finds_the_way_in(stage: Stage, admin: WebSession, chrome: Browser) -> None:
    async with visitor(chrome, stage.hub.url) as someone:
        page = someone.page
        await someone.go("/hub/")
        await someone.picture("login")
        await page.get_by_role("link", name="Sign up").click()
        await someone.picture("signup")
        await page.get_by_label("Name").fill("carol")
        await page.get_by_label("Password", exact=True).fill("short12")
        await page.evaluate("document.querySelector('form').noValidate = true")
        await page.get_by_role("button", name="Sign up").click()
        await expect(page.locator("#password-error")).to_have_text("Use at least 8 characters.")
        await someone.picture("signup-wrong")
        await page.get_by_label("Password", exact=True).fill(PASSWORD)
        await page.get_by_label("Password again").fill(PASSWORD)
        await page.get_by_role("button", name="Sign up").click()
        await expect(page.get_by_role("heading", name="Your request is in")).to_be_visible()
        await someone.picture("signed-up")
        await someone.go("/hub/login")
        await page.get_by_label("Name").fill("carol")
        await page.get_by_label("Password", exact=True).fill(PASSWORD)
        await page.get_by_role("button", name="Log in").click()
        await expect(page.get_by_role("alert").first).to_contain_text("waits for an administrator")
        await someone.picture("login-waits")
        await admin.post("approvals", name="carol", decision="approve")
        await someone.login("carol", PASSWORD)
        await expect(page.get_by_role("heading", name="Workspaces")).to_be_visible()
        await someone.picture("home-first")


async def test_rows_follow_what_happens_and_keep_the_focus(stage: Stage, alice: Visitor) -> None:
    name = await have(stage, "live", title="Live <b>one</b>")
    await alice.go("/hub/home")
    shown = row(alice, "live")
    await expect(shown.locator(".ml-status")).to_have_text("Ready")
    await expect(shown.get_by_role("heading")).to_have_text("Live <b>one</b>")
    menu = shown.locator(".ml-menu > summary")
    await menu.focus()
    await stage.worker.move(name, Phase.STARTING, progress=60, message="Waiting for Jupyter to answer")
    await expect(shown.locator(".ml-status")).to_have_text("Starting 60 %")
    await expect(menu).to_be_focused()
    await expect(alice.page.locator("#workspaces-said")).to_contain_text("Starting")
    await stage.worker.move(name, Phase.FAILED, reason=Reason.EXITED, message="Exit code 1.", log_tail=HOSTILE)
    await expect(shown.locator(".ml-status")).to_have_text("Failed")
    await shown.get_by_text("Last lines of its log").click()
    await expect(shown.locator("pre")).to_have_text(HOSTILE)
    assert "owned" not in await alice.page.title()
    await stage.until_gone("alice", "live")
    await shown.get_by_role("button", name="Try again").click()
    await alice.page.wait_for_url("**/user/alice/live/**")
    alice.complaints.clear()  # there is no workspace behind the scripted worker
    await alice.go("/hub/home")
    await expect(shown.locator(".ml-status")).to_have_text("Ready")
    await shown.get_by_role("button", name="Stop").click()
    await expect(shown.locator(".ml-status")).to_have_text("Stopped")
    assert alice.page.url.endswith("/hub/home")


async def test_the_home_page_in_every_state(stage: Stage, alice: Visitor) -> None:
    size = {"cpu_limit": 4, "mem_limit": "16G"}
    for server in ("gpu1", "soon", "train", "waits", "broken"):
        await have(stage, server, **size, days_to_live=2)
    move, prefix = stage.worker.move, "ws-alice-test-"
    await move(f"{prefix}gpu1", Phase.READY, expires_at=now() + timedelta(days=2, hours=4))
    await move(f"{prefix}soon", Phase.READY, expires_at=now() + timedelta(minutes=12))
    await move(f"{prefix}train", Phase.STARTING, progress=60, message="Waiting for Jupyter to answer")
    await move(f"{prefix}waits", Phase.QUEUED, message="Waits for room")
    await move(f"{prefix}broken", Phase.FAILED, message="jupyterhub-singleuser ended with 1", log_tail=HOSTILE)
    await alice.go("/hub/home")
    await expect(row(alice, "waits").locator(".ml-status")).to_have_text("Queued, 1st")
    await expect(row(alice, "soon").locator(".ml-warned")).to_contain_text("in 11 min")
    await alice.picture("home")
    await row(alice, "broken").get_by_text("Last lines").click()
    await row(alice, "gpu1").locator(".ml-menu > summary").click()
    await alice.picture("home-open")
    await row(alice, "gpu1").get_by_role("link", name="SSH").click()
    dialog = alice.page.get_by_role("dialog")
    await expect(dialog.locator("#ssh-command")).to_have_text("ssh -p 2222 alice--gpu1@127.0.0.1")
    await alice.picture("ssh")
    await alice.page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await expect(row(alice, "gpu1").locator(".ml-menu > summary")).to_be_focused()
    await row(alice, "gpu1").locator(".ml-menu > summary").click()
    await row(alice, "gpu1").get_by_role("link", name="Delete").click()
    await alice.picture("delete")
    await dialog.get_by_role("link", name="Keep it").click()
    await row(alice, "soon").get_by_role("button", name="Extend").click()
    await expect(row(alice, "soon").locator(".ml-warned")).to_have_count(0)
    await row(alice, "gpu1").locator(".ml-menu > summary").click()
    await row(alice, "gpu1").get_by_role("link", name="Delete").click()
    await dialog.get_by_role("button", name="Delete gpu1 and its files").click()
    await expect(row(alice, "gpu1")).to_have_count(0)


async def test_the_form_says_what_is_wrong_while_it_is_typed(stage: Stage, alice: Visitor) -> None:
    page = alice.page
    await alice.go("/hub/home")
    await page.get_by_role("link", name="New workspace").click()
    await alice.picture("new")
    await page.locator("#name").press_sequentially("A--b")
    await expect(page.locator("#name")).to_have_value("a--b")
    await expect(page.locator("#name-live")).to_be_visible()
    await page.locator("#name").fill("fine-name")
    await expect(page.locator("#name-live")).to_be_hidden()
    await page.locator("#cpu_limit").fill("2")
    await expect(page.locator("[data-slider=cpu_limit]")).to_have_value("2")
    await expect(page.locator("#options-summary")).to_have_text("You get: 2 cores.")
    await page.get_by_role("button", name="Add a variable").click()
    second = page.locator(".ml-env").nth(1)
    await expect(second.get_by_label("Name of the variable")).to_be_focused()
    await second.get_by_label("Kind").select_option("secret")
    await expect(second.get_by_label("Value")).to_have_attribute("type", "password")
    await second.get_by_role("button", name="Remove").click()
    await expect(page.locator(".ml-env")).to_have_count(1)
    await page.evaluate("document.querySelector('#options-form').noValidate = true")
    await page.locator("#cpu_limit").fill("99")
    await page.get_by_role("button", name="Create and start").click()
    await expect(page.locator("#cpu_limit-error")).to_have_text("Must be at most 8 cores.")
    await expect(page.locator("#name")).to_have_value("fine-name")
    await alice.picture("new-wrong")
    alice.complaints.clear()  # the browser's line about the 400


async def test_the_starting_page_shows_each_step_survives_a_reload_and_can_be_cancelled(
    stage: Stage, alice: Visitor
) -> None:
    page, name = alice.page, "ws-alice-test-slow"
    stage.worker.spawn_until = Phase.QUEUED
    try:
        await alice.go("/hub/new-workspace")
        await page.locator("#name").fill("slow")
        await page.get_by_role("button", name="Create and start").click()
        await page.wait_for_url("**/spawn-pending/alice/slow*")
        now_at = page.locator("[data-state=now]")
        await expect(now_at).to_contain_text("Queued")
        await expect(now_at).to_contain_text("1st in line" if not await _others_wait(stage) else "in line")
        await alice.picture("starting-queued")
        await stage.worker.move(name, Phase.PREPARING, progress=20)
        await expect(now_at).to_contain_text("Preparing")
        await stage.worker.move(name, Phase.STARTING, progress=70, message="Waiting for Jupyter to answer")
        await expect(now_at).to_contain_text("Waiting for Jupyter")
        await page.get_by_text("All events").click()
        await page.reload()
        await expect(now_at).to_contain_text("Waiting for Jupyter")
        await page.get_by_text("All events").click()
        await expect(page.locator(".ml-events li")).not_to_have_count(0)
        await alice.picture("starting")
        await page.get_by_role("button", name="Cancel").click()
        await page.wait_for_url("**/hub/home")
        await expect(row(alice, "slow").locator(".ml-status")).to_have_text("Stopped")
        await stage.until_phase(name, Phase.STOPPED)
    finally:
        stage.worker.spawn_until = Phase.READY


async def _others_wait(stage: Stage) -> bool:
    record = await stage.worker.record("ws-alice-test-waits")
    return record is not None and record.phase is Phase.QUEUED


async def test_a_start_that_fails_keeps_its_log_and_says_what_to_do(stage: Stage, alice: Visitor) -> None:
    page, name = alice.page, "ws-alice-test-fails"
    stage.worker.spawn_until = Phase.STARTING
    try:
        await alice.go("/hub/new-workspace")
        await page.locator("#name").fill("fails")
        await page.get_by_role("button", name="Create and start").click()
        await page.wait_for_url("**/spawn-pending/alice/fails*")
        await stage.until_phase(name, Phase.STARTING)
        await stage.worker.move(
            name, Phase.FAILED, reason=Reason.TIMEOUT, message="It did not answer within 60 s.", log_tail=HOSTILE
        )
        await expect(page.locator("#steps")).to_contain_text("It did not answer within 60 s.")
        await expect(page.locator("#steps pre")).to_have_text(HOSTILE)
        await expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
        await alice.picture("starting-failed")
        await page.reload()
        await expect(page.get_by_role("heading", level=1)).to_have_text("fails did not start")
        await alice.picture("not-running")
        alice.complaints.clear()  # the browser's line about the 503
    finally:
        stage.worker.spawn_until = Phase.READY


async def test_a_start_that_is_ready_leads_into_the_workspace(stage: Stage, alice: Visitor) -> None:
    page = alice.page
    stage.worker.spawn_until = Phase.STARTING
    await alice.go("/hub/new-workspace")
    await page.locator("#name").fill("quick")
    await page.get_by_role("button", name="Create and start").click()
    await page.wait_for_url("**/spawn-pending/alice/quick*")
    await stage.until_phase("ws-alice-test-quick", Phase.STARTING)
    stage.worker.spawn_until = Phase.READY
    await stage.worker.move("ws-alice-test-quick", Phase.READY)
    await page.wait_for_url(re.compile("/user/alice/quick/"))
    alice.complaints.clear()  # there is no workspace behind the scripted worker


async def test_account_keys_and_tokens(stage: Stage, alice: Visitor, tmp_path_factory: pytest.TempPathFactory) -> None:
    page = alice.page
    await alice.go("/hub/account")
    await alice.picture("account")
    key = await _public_key(str(tmp_path_factory.mktemp("keys") / "key"))
    await alice.go("/hub/ssh-keys")
    await page.get_by_label("Public key").fill("ssh-rsa AAAA broken")
    await page.get_by_role("button", name="Add the key").click()
    await expect(page.get_by_role("alert").first).to_contain_text("damaged")
    await alice.picture("ssh-keys-refused")
    alice.complaints.clear()  # the browser's line about the 400
    await page.get_by_label("Public key").fill(key)
    await page.get_by_role("button", name="Add the key").click()
    await expect(page.locator(".ml-people")).to_contain_text("SHA256:")
    await alice.picture("ssh-keys")
    await page.get_by_text("Remove", exact=False).first.click()
    await page.get_by_role("button", name="Remove this key").click()
    await expect(page.get_by_text("You have no key here yet")).to_be_visible()
    await alice.go("/hub/token")
    await page.locator("#token-note").fill("a script's")
    await page.get_by_role("button", name="Request new API token").click()
    await expect(page.locator("#token-result")).to_have_text(re.compile(r"\w{16,}"))
    await alice.picture("token")


async def _public_key(path: str) -> str:
    process = await asyncio.create_subprocess_exec("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path)
    assert await process.wait() == 0
    with open(f"{path}.pub") as file:  # noqa: ASYNC230  (a line)
        return file.read()


async def test_the_pages_of_an_admin(stage: Stage, admin: WebSession, chrome: Browser) -> None:
    for name in ("dave", "erin"):
        waiting = WebSession(stage.hub.url, address="198.51.100.1")
        await waiting.sign_up(name, PASSWORD)
        await waiting.close()
    async with visitor(chrome, stage.hub.url) as someone:
        page = someone.page
        await someone.login("admin", ADMIN_PASSWORD)
        await expect(page.get_by_role("navigation")).to_contain_text("Users 2")
        await someone.go("/hub/approvals")
        await someone.picture("approvals")
        await page.get_by_role("button", name="Approve dave").click()
        await page.get_by_role("button", name="Reject erin").click()
        await expect(page.get_by_text("Nobody waits.")).to_be_visible()
        await someone.go("/hub/home?user=alice")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Workspaces of alice")
        await someone.picture("home-of-another")
        await someone.go("/hub/admin")
        await expect(page.get_by_role("button", name="Add Users")).to_be_visible()
        await someone.picture("admin")
        assert not someone.complaints
        await someone.go("/hub/no-such-page")
        await someone.picture("error")


async def test_everything_works_without_javascript(stage: Stage, admin: WebSession, chrome: Browser) -> None:
    await (await approved(stage, admin, "alice")).close()
    context = await chrome.new_context(java_script_enabled=False)
    page = await context.new_page()
    someone = Visitor(context, page, stage.hub.url)
    await someone.login("alice", PASSWORD)
    await page.get_by_role("link", name="New workspace").click()
    await page.locator("#name").fill("plain")
    await page.locator("#cpu_limit").fill("1")
    await page.get_by_label("Name of the variable").fill("A")
    await page.get_by_label("Value of the variable").fill("b")
    await page.get_by_role("button", name="Create and start").click()
    await stage.until_ready("alice", "plain")
    await someone.go("/hub/home")
    shown = row(someone, "plain")
    await shown.locator(".ml-menu > summary").click()
    await shown.get_by_role("link", name="SSH").click()
    await expect(page.locator("#ssh-command")).to_have_text("ssh -p 2222 alice--plain@127.0.0.1")
    await page.get_by_role("link", name="Back to the workspaces").click()
    await shown.get_by_role("button", name="Stop").click()
    await stage.until_phase("ws-alice-test-plain", Phase.STOPPED)
    await someone.go("/hub/home")
    await shown.locator(".ml-menu > summary").click()
    await shown.get_by_role("link", name="Delete").click()
    await page.get_by_role("button", name="Delete plain and its files").click()
    await expect(page.get_by_role("heading", name="Workspaces")).to_be_visible()
    await context.close()
