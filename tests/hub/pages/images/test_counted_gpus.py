"""Where workspaces are pods, people say how many GPUs they want; no worker tells which there are."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.hub.conftest import Stage, make_stage
from tests.hub.images import PROFILES, images_environment
from tests.hub.pages.browser import Visitor
from tests.hub.pages.images.conftest import needs_browser
from tests.hub.web import WebSession
from tests.support.hub_process import ADMIN_PASSWORD

pytestmark = pytest.mark.asyncio(loop_scope="module")

ON_A_CLUSTER = {"MLHUB_HUB_BACKEND": "kubernetes", "MLHUB_KEEP_VOLUMES_DAYS": "0"}
CPU_ONLY = PROFILES.replace("    max_mem: 4G\n", "    max_mem: 4G\n    max_gpus: 0\n")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("hub")
    environment = images_environment(folder, CPU_ONLY, **ON_A_CLUSTER)
    async for made in make_stage(folder, **environment):
        made.worker.say(backend="kubernetes", limits="Limits of CPU and memory are kept by the cluster.")
        yield made


async def test_the_rest_api_takes_a_number(stage: Stage) -> None:
    await stage.user("gus")
    for asked, said in (("all", "say how many, such as 2"), ("0,1", "say how many"), (3, "must be at most 2 GPUs")):
        answer = await stage.api("POST", "/users/gus/servers/x", {"profile": "large", "gpus": asked}, expect=400)
        assert answer["message"].startswith(f"gpus: {said}"), answer
    await stage.api("POST", "/users/gus/servers/x", {"profile": "large", "gpus": 2})
    await stage.until_ready("gus", "x")
    assert stage.worker.spawns_of("ws-gus-test-x")[-1].spec.gpus == "count:2"
    await stage.api("DELETE", "/users/gus/servers/x", expect=204)


async def test_a_form_without_javascript_says_what_it_may_be(stage: Stage, alice: WebSession) -> None:
    page = (await alice.get("new-workspace")).text
    assert 'id="gpus" name="gpus" type="number"' in page
    assert "This profile may have none." in page, "of the profile that is chosen"
    assert "data-gpu=" not in page


async def test_no_field_is_there_where_nobody_may_have_any(tmp_path: Path) -> None:
    silent = PROFILES.replace("    max_gpus: 2\n", "")
    async for made in make_stage(tmp_path, **images_environment(tmp_path, silent, **ON_A_CLUSTER)):
        admin = WebSession(made.hub.url)
        assert (await admin.login("admin", ADMIN_PASSWORD)).status_code == 302
        page = (await admin.get("new-workspace")).text
        assert "No profile has any." in page
        assert 'name="gpus"' not in page
        await admin.close()


@needs_browser
@pytest.mark.browser
async def test_the_field_follows_the_profile(stage: Stage, person: Visitor) -> None:
    page = person.page
    await person.go("/hub/new-workspace")
    gpus, summary = page.locator("#gpus"), page.locator("#options-summary")
    await expect(gpus).to_have_attribute("max", "0")
    await person.picture("new-gpus-none")
    await page.get_by_text("More of everything").click()
    await expect(gpus).to_have_attribute("max", "2")
    await expect(page.locator("#gpus-hint")).to_have_text(
        "How many; the cluster chooses which. At most 2. Empty: none."
    )
    await gpus.fill("1")
    await expect(summary).to_have_text("You get: Large, 4 cores, 8 GiB memory, 1 GPU.")
    await gpus.fill("0")
    await expect(summary).to_have_text("You get: Large, 4 cores, 8 GiB memory.")
    await gpus.fill("2")
    await expect(summary).to_have_text("You get: Large, 4 cores, 8 GiB memory, 2 GPUs.")
    await page.locator("#name").fill("counted")
    await person.picture("new-gpus-counted")
    await page.get_by_role("button", name="Create and start").click()
    await stage.until_ready("alice", "counted")
    assert stage.worker.spawns_of("ws-alice-test-counted")[-1].spec.gpus == "count:2"
    await page.wait_for_url("**/user/alice/counted/**")
    person.complaints.clear()  # there is no workspace behind the scripted worker
    await person.go("/hub/home")
    await expect(page.locator("#ws-alice-test-counted")).to_contain_text("2 GPUs")
    await stage.api("DELETE", "/users/alice/servers/counted", expect=204)
    await stage.until_gone("alice", "counted")
    await person.go("/hub/spawn/alice/counted")
    await expect(gpus).to_have_value("2")
