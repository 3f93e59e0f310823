"""The form and the dialogs where workspaces are containers."""

import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from mlhub_shared.contracts.workspace import Phase, Reason
from tests.hub.conftest import Stage
from tests.hub.pages.browser import Visitor
from tests.hub.pages.images.conftest import GPUS, needs_browser, text
from tests.hub.pages.test_pages import act, make, row
from tests.hub.web import WebSession, field_error
from tests.support.waiting import until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_form_tells_all_there_is_to_choose(stage: Stage, alice: WebSession) -> None:
    page = text((await alice.get("new-workspace")).text)
    for said in (
        "Small Python and JupyterLab, for a first look. registry.example/lab:1",
        "1 core, 2 GiB memory; at most 2 cores, 4 GiB.",
        "4 cores, 8 GiB memory; at most 6 cores, 32 GiB, 2 GPUs.",
        "Allowed: registry.example/team/* .",
        "16 of 16 cores free",
        "Left of what your running workspaces may have together: 6 of 6 cores.",
        "node1: 1 free 3 free 0 taken 2 taken",
        "When you delete it, they are kept for 7 days more, then deleted.",
    ):
        assert said in page, said


async def test_what_is_too_much_beside_the_others_stands_at_its_field(stage: Stage, alice: WebSession) -> None:
    assert (await make(alice, "first", profile="large", cpu_limit="5")).status_code == 302
    await stage.until_ready("alice", "first")
    answer = await make(alice, "second", profile="large", cpu_limit="2", image="evil", gpus="0,1,2")
    assert answer.status_code == 400
    assert "must match one of registry.example/team/*" in str(field_error(answer.text, "image"))
    assert field_error(answer.text, "gpus") == "Must be at most 2 GPUs."
    assert "1 are left" in str(field_error(answer.text, "cpu_limit"))
    assert 'value="large" data' in answer.text
    assert "1 of 6 cores" in answer.text
    page = row((await alice.get("home")).text, "ws-alice-test-first")
    assert "Large · registry.example/lab-gpu:1" in page
    assert "5 cores instead of 4" in page
    await act(alice, "stop", "first")
    await stage.until_gone("alice", "first")


async def test_options_are_changed_without_a_start(stage: Stage, alice: WebSession) -> None:
    await make(alice, "calm", display_name="Calm one", profile="small", is_mount_volume=["false", "true"])
    await stage.until_ready("alice", "calm")
    refused = await alice.post("spawn/alice/calm", form="new-workspace", then="save", cpu_limit="1")
    assert "stop it first" in refused.text
    await act(alice, "stop", "calm")
    await stage.until_gone("alice", "calm")
    secret: dict[str, Any] = {"env_name": ["KEY"], "env_value": ["hush"], "env_kind": ["secret"]}
    answer = await alice.post(
        "spawn/alice/calm", then="save", display_name="Calmer", profile="small", cpu_limit="2", **secret
    )
    assert (answer.status_code, answer.headers["location"]) == (302, "/hub/home")
    shown = row((await alice.get("home")).text, "ws-alice-test-calm")
    assert shown.startswith("Calmer calm Small · registry.example/lab:1 Stopped")
    assert "Has 2 cores" in shown
    assert "2 cores instead of 1" in shown
    too_much = await alice.post("spawn/alice/calm", then="save", profile="small", cpu_limit="3")
    assert field_error(too_much.text, "cpu_limit") == "Must be at most 2 cores."
    await act(alice, "start", "calm")
    await stage.until_ready("alice", "calm")
    [first, second] = stage.worker.spawns_of("ws-alice-test-calm")
    assert (first.spec.display_name, second.spec.display_name, second.spec.cpu_limit) == ("Calm one", "Calmer", 2)
    entry = await stage.bus.secrets.get("ws-alice-test-calm")
    assert entry is not None
    assert entry.value.secret_env == {"KEY": "hush"}
    await act(alice, "stop", "calm")
    await stage.until_gone("alice", "calm")


async def test_an_update_restarts_what_runs_and_keeps_its_options(stage: Stage, alice: WebSession) -> None:
    await make(alice, "upd", profile="small", cpu_limit="2")
    await stage.until_ready("alice", "upd")
    question = text((await alice.get("workspaces/confirm-update", user="alice", server="upd")).text)
    assert "It runs now and is restarted" in question
    assert "Its files and options stay." in question
    answer = await act(alice, "update", "upd")
    assert answer.headers["location"] == "/hub/spawn-pending/alice/upd"
    await stage.until_ready("alice", "upd")
    kinds = [command.kind for command in stage.worker.commands if command.workspace.server == "upd"]
    assert kinds == ["spawn", "stop", "spawn"]
    [first, second] = stage.worker.spawns_of("ws-alice-test-upd")
    assert second.spec == first.spec.model_copy(update={"update": True})
    await act(alice, "stop", "upd")
    await stage.until_gone("alice", "upd")
    assert "restarted" not in (await alice.get("workspaces/confirm-update", user="alice", server="upd")).text
    await act(alice, "start", "upd")
    await stage.until_ready("alice", "upd")
    assert stage.worker.spawns_of("ws-alice-test-upd")[-1].spec == first.spec
    await act(alice, "stop", "upd")
    await stage.until_gone("alice", "upd")


async def test_an_update_that_would_be_refused_stops_nothing(stage: Stage, alice: WebSession) -> None:
    await make(alice, "stays", profile="small")
    await stage.until_ready("alice", "stays")
    await stage.api("DELETE", "/users/alice/servers/stays", expect=204)
    await stage.api("PATCH", "/users/alice/servers/stays", {"user_options": {"profile": "large"}}, expect=200)
    await stage.api("POST", "/users/alice/servers/stays", expect=202)
    await stage.until_ready("alice", "stays")
    await make(alice, "more", profile="small", cpu_limit="2")
    await stage.until_ready("alice", "more")
    await stage.worker.move(
        "ws-alice-test-more",
        Phase.READY,
        spec=stage.worker.spawns_of("ws-alice-test-more")[-1].spec.model_copy(update={"cpu_limit": 3}),
    )
    answer = await act(alice, "update", "stays")
    assert answer.status_code == 400
    assert "your workspaces together may have 6 cores" in answer.text
    record = await stage.worker.record("ws-alice-test-stays")
    assert record is not None
    assert record.phase is Phase.READY
    for server in ("stays", "more"):
        await act(alice, "stop", server)
        await stage.until_gone("alice", server)


async def test_a_deletion_says_what_becomes_of_the_files(stage: Stage, alice: WebSession) -> None:
    await make(alice, "kept", profile="small")
    await make(alice, "bare", profile="small", is_mount_volume=["false"])
    for server, said, button in (
        ("kept", "Its files are kept for 7 days", "Delete kept"),
        ("bare", "It has no persistent volume", "Delete bare"),
    ):
        await stage.until_ready("alice", server)
        page = text((await alice.get("workspaces/confirm-delete", user="alice", server=server)).text)
        assert said in page
        assert f"{button} Keep it" in page
    assert not stage.worker.spawns_of("ws-alice-test-bare")[-1].spec.is_mount_volume
    assert (
        "every file in it is lost" in (await alice.get("workspaces/confirm-update", user="alice", server="bare")).text
    )
    for server in ("kept", "bare"):
        await act(alice, "delete", server)


async def test_a_deletion_tells_of_a_volume_from_an_earlier_start(stage: Stage, alice: WebSession) -> None:
    async def said() -> str:
        return text((await alice.get("workspaces/confirm-delete", user="alice", server="once")).text)

    await make(alice, "once", profile="small")
    await stage.until_ready("alice", "once")
    assert "had are still there" not in await said()
    await act(alice, "stop", "once")
    await stage.until_gone("alice", "once")
    await alice.post("spawn/alice/once", then="save", profile="small", is_mount_volume=["false"])
    for is_running in (False, True):
        if is_running:
            await act(alice, "start", "once")
            await stage.until_ready("alice", "once")
            assert not stage.worker.spawns_of("ws-alice-test-once")[-1].spec.is_mount_volume
        question = await said()
        lost = "; all others are lost" if is_running else ""
        assert f"the files of the one it had are still there{lost}. They are kept for 7 days" in question
        assert "no files to keep" not in question
    await act(alice, "delete", "once")


async def test_gpus_that_are_away_just_now_stay_in_the_options(stage: Stage, alice: WebSession) -> None:
    await make(alice, "gpu", profile="large", gpus="1")
    await stage.until_ready("alice", "gpu")
    await act(alice, "stop", "gpu")
    await stage.until_gone("alice", "gpu")
    for away in ({"draining": True}, {"gpus": (), "gpus_free": ()}):
        stage.worker.say(**away)

        async def is_seen() -> bool:
            return "No machine offers a GPU just now." in (await alice.get("new-workspace")).text

        await until_async(is_seen)
        page = (await alice.get("spawn/alice/gpu")).text
        assert re.search(r'<input id="gpus" name="gpus"[^>]* value="1"', page)
        assert "No machine offers a GPU just now." in page
        assert 'id="gpus"' not in (await alice.get("new-workspace")).text
        answer = await alice.post("spawn/alice/gpu", then="save", profile="large", gpus="1", cpu_limit="2")
        assert answer.status_code == 302
        model = await stage.api("GET", "/users/alice/servers/gpu", expect=200)
        assert model["user_options"]["gpus"] == "1"
        stage.worker.say(draining=False, **GPUS)
    await act(alice, "delete", "gpu")


async def test_a_title_that_can_not_be_is_said_for_the_default_workspace_too(stage: Stage, alice: WebSession) -> None:
    for title, is_kept in (("Main one", True), ("a\u0007b", False), ("x" * 65, False)):
        answer = await alice.post("spawn/alice", then="save", display_name=title, profile="small")
        assert (answer.status_code == 302) is is_kept
        assert is_kept or "At most 64 letters" in str(field_error(answer.text, "display_name"))
        model = await stage.api("GET", "/users/alice/servers/", expect=200)
        assert model["display_name"] == "Main one"
    cleared = await alice.post("spawn/alice", then="save", display_name="", profile="small")
    assert cleared.status_code == 302
    assert (await stage.api("GET", "/users/alice/servers/", expect=200))["display_name"] == ""


async def choose(page: Page, action: str) -> None:
    """From the menu of the workspace `chosen`."""
    await page.locator("#ws-alice-test-chosen .ml-menu > summary").click()
    await page.get_by_role("link", name=action).click()


@needs_browser
@pytest.mark.browser
async def test_the_fields_follow_the_profile(stage: Stage, person: Visitor) -> None:
    page = person.page
    await person.go("/hub/new-workspace")
    cpu = page.locator("#cpu_limit")
    await expect(cpu).to_have_attribute("max", "2")
    await expect(page.locator("#cpu_limit-hint")).to_have_text("At most 2 cores. Empty: 1 core.")
    await expect(page.locator("#options-summary")).to_have_text("You get: Small, 1 core, 2 GiB memory.")
    await person.picture("new-profiles")
    await page.get_by_text("More of everything").click()
    await expect(page.locator("#options-summary")).to_have_text("You get: Large, 4 cores, 8 GiB memory.")
    await expect(cpu).to_have_attribute("max", "6")
    await expect(page.locator("[data-slider=cpu_limit]")).to_have_value("4")
    await expect(page.locator("#shm_size-hint")).to_have_text("At most 4 GiB. Empty: 1 GiB.")
    await cpu.fill("5")
    await page.get_by_role("button", name="3 free").click()
    await expect(page.locator("#gpus")).to_have_value("3")
    await expect(page.get_by_role("button", name="3 free")).to_have_attribute("aria-pressed", "true")
    await expect(page.locator("#options-summary")).to_have_text("You get: Large, 5 cores, 8 GiB memory, GPU 3.")
    await page.locator("#name").fill("chosen")
    await page.locator("#display_name").fill("Fine tuning")
    await page.get_by_label("Persistent volume").uncheck()
    await person.picture("new-profiles-filled")
    await page.get_by_role("button", name="Create and start").click()
    await stage.until_ready("alice", "chosen")
    spec = stage.worker.spawns_of("ws-alice-test-chosen")[-1].spec
    assert (spec.profile, spec.cpu_limit, spec.gpus, spec.is_mount_volume) == ("large", 5, "3", False)
    await page.wait_for_url("**/user/alice/chosen/**")
    person.complaints.clear()  # there is no workspace behind the scripted worker
    await person.go("/hub/home")
    await expect(page.locator("#ws-alice-test-chosen")).to_contain_text("no persistent volume")
    await stage.worker.move(
        "ws-alice-test-chosen", Phase.FAILED, reason=Reason.OUT_OF_MEMORY, log_tail="Killed", message=""
    )
    await expect(page.locator("#ws-alice-test-chosen")).to_contain_text("more memory than it may have")
    await stage.until_gone("alice", "chosen")
    await person.picture("home-images")
    await choose(page, "Options and start")
    await expect(page.get_by_label("Persistent volume")).not_to_be_checked()
    await person.picture("options-stopped")
    await page.locator("#cpu_limit").fill("3")
    await page.get_by_role("button", name="Save without starting").click()
    await page.wait_for_url("**/hub/home")
    await expect(page.locator("#ws-alice-test-chosen")).to_contain_text("3 cores instead of 4")
    await choose(page, "Update")
    await expect(page.get_by_role("dialog")).to_contain_text("it begins without files")
    await person.picture("update")
    await page.get_by_role("link", name="Leave it as it is").click()
    await choose(page, "Delete")
    await person.picture("delete-no-volume")
    await page.get_by_role("button", name="Delete Fine tuning").click()
    await expect(page.locator("#ws-alice-test-chosen")).to_have_count(0)


@needs_browser
@pytest.mark.browser
async def test_the_pull_of_an_image_is_a_step(stage: Stage, person: Visitor) -> None:
    page, name = person.page, "ws-alice-test-pulls"
    stage.worker.spawn_until = Phase.PREPARING
    try:
        await person.go("/hub/new-workspace")
        await page.locator("#name").fill("pulls")
        await page.get_by_role("button", name="Create and start").click()
        await page.wait_for_url("**/spawn-pending/alice/pulls*")
        await stage.until_phase(name, Phase.PREPARING)
        await stage.worker.progress(name, 30, "Pulling image 340 of 1,200 MB")
        now_at = page.locator("[data-state=now]")
        await expect(now_at).to_contain_text("Pulling image")
        await expect(now_at).to_contain_text("340 of 1,200 MB")
        await expect(page.locator("#steps .ml-status")).to_have_text("Preparing 30 %")
        await person.picture("starting-pulling")
        await stage.worker.move(name, Phase.STARTING, progress=70, message="Waiting for Jupyter to answer")
        await expect(now_at).to_contain_text("Waiting for Jupyter")
        await expect(page.locator("[data-state=done]").last).to_contain_text("Starting")
        await expect(page.locator(".ml-steps")).to_contain_text("Pulling image")
        await page.get_by_role("button", name="Cancel").click()
        await page.wait_for_url("**/hub/home")
    finally:
        stage.worker.spawn_until = Phase.READY


@needs_browser
@pytest.mark.browser
async def test_a_link_is_looked_through_before_it_starts_anything(stage: Stage, person: Visitor) -> None:
    page = person.page
    await stage.api(
        "PUT", "/users/alice/servers/linked", {"user_options": {"gpus": "1", "env": {"A": "b"}}}, expect=201
    )
    stage.worker.say(draining=True)
    await person.go("/hub/spawn/alice/linked")
    await expect(page.locator("#gpus")).to_have_value("1")
    await person.picture("options-gpus-away")
    stage.worker.say(draining=False)
    link = "opt-profile=large&opt-cpu_limit=3&opt-mem_limit=512M&opt-env=EPOCHS%3D9&opt-secret_env=KEY%3Dhush"
    await person.go(f"/hub/spawn/alice/linked?{link}")
    await expect(page.get_by_text("A link has filled in this form.")).to_be_visible()
    await expect(page.locator("#options-summary")).to_have_text("You get: Large, 3 cores, 0.5 GiB memory.")
    await expect(page.locator("[data-slider=cpu_limit]")).to_have_value("3")
    assert await page.locator("[name=env_name]").evaluate_all("names => names.map(name => name.value)") == [
        "EPOCHS",
        "KEY",
    ]
    await person.picture("options-linked")
    assert not stage.worker.spawns_of("ws-alice-test-linked")
    await page.get_by_role("button", name="Start with these options").click()
    await stage.until_ready("alice", "linked")
    assert "hush" not in page.url
    await page.wait_for_url("**/user/alice/linked/**")
    person.complaints.clear()  # there is no workspace behind the scripted worker
    spec = stage.worker.spawns_of("ws-alice-test-linked")[-1].spec
    assert (spec.profile, spec.cpu_limit, spec.mem_limit, spec.gpus) == ("large", 3, 512 * 1024**2, None)
    assert (spec.env, spec.secret_env) == ({"EPOCHS": "9"}, ("KEY",))
    await stage.api("DELETE", "/users/alice/servers/linked", expect=204)
    await stage.until_gone("alice", "linked")
    await stage.api("PATCH", "/users/alice/servers/linked", {"user_options": {"is_mount_volume": False}}, expect=200)
    await person.go("/hub/workspaces/confirm-delete?user=alice&server=linked")
    await expect(page.get_by_text("the files of the one it had are still there")).to_be_visible()
    await person.picture("delete-volume-from-before")
    await page.get_by_role("button", name="Delete linked").click()
    await page.wait_for_url("**/hub/home")
