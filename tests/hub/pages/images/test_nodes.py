"""The pages of nodes, and of workspaces whose node is away."""

import pytest
from playwright.async_api import Browser, expect

from tests.hub.conftest import Stage
from tests.hub.pages.browser import Visitor, visitor
from tests.hub.pages.images.conftest import needs_browser, text
from tests.hub.web import WebSession
from tests.support.hub_process import ADMIN_PASSWORD

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_admin_sees_and_drains_the_machines(stage: Stage, admin: WebSession, alice: WebSession) -> None:
    page = (await admin.get("nodes")).text
    for said in ("5 of 16 cores", "12 GiB of 64 GiB", "2 of 4", "GPU 1 free", "GPU 0 taken", "gpu=a100", "zone=b"):
        assert said in text(page), said
    answer = await admin.post("nodes", node="node1", action="drain")
    assert answer.headers["location"] == "/hub/nodes"
    assert "Drained" in (await admin.get("nodes")).text
    assert stage.worker.drains[-1].requester == "user:admin"
    assert "being emptied" in (await alice.get("new-workspace")).text
    await admin.post("nodes", node="node1", action="resume")
    assert "Takes workspaces" in (await admin.get("nodes")).text
    assert (await admin.post("nodes", node="none", action="drain")).status_code == 404
    assert (await alice.get("nodes")).status_code == 403
    assert (await alice.get("mlhub/nodes")).status_code == 403
    assert (await alice.post("nodes", form="account", node="node1", action="drain")).status_code == 403
    assert "/hub/nodes" not in (await alice.get("home")).text


@needs_browser
@pytest.mark.browser
async def test_the_machines_are_shown_live_and_drained_with_a_question(stage: Stage, chrome: Browser) -> None:
    async with visitor(chrome, stage.hub.url) as someone:
        page = someone.page
        await someone.login("admin", ADMIN_PASSWORD)
        await page.get_by_role("link", name="Nodes").click()
        node = page.locator("#node-node1")
        await expect(node).to_contain_text("5 of 16 cores")
        stage.worker.say(cpu_granted=7)
        await expect(node).to_contain_text("7 of 16 cores")
        await someone.picture("nodes")
        await node.locator("summary").click()
        await someone.picture("nodes-question")
        await page.get_by_role("button", name="Drain node1").click()
        await expect(node.locator(".ml-status")).to_have_text("Drained")
        await someone.picture("nodes-drained")
        await node.locator("summary").click()
        await page.get_by_role("button", name="Have node1 take workspaces").click()
        await expect(node.locator(".ml-status")).to_have_text("Takes workspaces")
        assert not someone.complaints


@needs_browser
@pytest.mark.browser
async def test_a_machine_that_goes_away_is_seen_without_a_reload(stage: Stage, person: Visitor) -> None:
    await stage.api("POST", "/users/alice/servers/far", expect=202)
    await stage.until_ready("alice", "far")
    await person.go("/hub/home")
    far = person.page.locator("#ws-alice-test-far")
    await expect(far.get_by_role("link", name="Open")).to_be_visible()
    stage.worker.leave()
    await expect(far.locator(".ml-status")).to_have_text("Unreachable", timeout=30_000)
    await expect(far).to_contain_text("Its machine node1 does not answer.")
    await expect(far.get_by_role("link", name="Open")).to_have_count(0)
    await person.picture("home-unreachable")
    await stage.worker.live()
    await expect(far.get_by_role("link", name="Open")).to_be_visible()
