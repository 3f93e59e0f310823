"""The pages of SSH and of tools in a real browser; the pictures go into `artefacts/screenshots`."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, expect

from mlhub_hub.auth.ssh_keys import parse
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.queries import END_SESSION, LIST_PORTS, EndSession, ListPorts, Port, Ports
from mlhub_shared.contracts.services import OpenSession
from mlhub_shared.contracts.workspace import Phase
from tests.hub.conftest import Stage, make_stage
from tests.hub.pages.browser import Visitor, browser, chromium, visitor
from tests.hub.pages.conftest import PASSWORD, approved, now
from tests.hub.pages.test_ssh import HOST_KEY
from tests.hub.web import WebSession
from tests.support.hub_process import ADMIN_PASSWORD
from tests.support.makers import workspace
from tests.support.scripted_worker import NODE

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="needs chromium on PATH"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    shown = {"MLHUB_HUB_SSH_HOST_KEY": HOST_KEY}
    async for made in make_stage(tmp_path_factory.mktemp("hub"), **shown):
        yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def chrome() -> AsyncIterator[Browser]:
    async with browser() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def key(stage: Stage, admin: WebSession, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Alice's key; she has a workspace too."""
    file = tmp_path_factory.mktemp("keys") / "id"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "alice@laptop", "-f", str(file)]
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0
    line = await asyncio.to_thread(Path(f"{file}.pub").read_text)
    web = await approved(stage, admin, "alice")
    await stage.api("POST", "/users/alice/servers/gpu1", {"user_options": {}})
    await stage.until_ready("alice", "gpu1")
    await web.close()
    return line


@pytest_asyncio.fixture(loop_scope="module")
async def alice(stage: Stage, key: str, chrome: Browser) -> AsyncIterator[Visitor]:
    async with visitor(chrome, stage.hub.url) as someone:
        await someone.login("alice", PASSWORD)
        someone.complaints.clear()
        yield someone
        assert not someone.complaints


def row(someone: Visitor) -> Locator:
    return someone.page.locator("#ws-alice-test-gpu1")


async def choose(someone: Visitor, name: str) -> Locator:
    """An entry of the workspace's menu; returns the dialog it opens."""
    await row(someone).locator(".ml-menu > summary").click()
    await row(someone).get_by_role("link", name=name).click()
    dialog = someone.page.get_by_role("dialog")
    await expect(dialog).to_be_visible()
    return dialog


async def test_the_dialog_of_ssh_leads_to_a_line_for_the_terminal(stage: Stage, alice: Visitor) -> None:
    await alice.go("/hub/home")
    dialog = await choose(alice, "SSH")
    await expect(dialog).to_contain_text("You have no SSH key here yet")
    await expect(dialog.locator("#ssh-command")).to_have_text("ssh -p 2222 alice--gpu1@127.0.0.1")
    await alice.picture("ssh-dialog")
    await dialog.get_by_role("button", name="Don't start it").click()
    await expect(alice.page.get_by_text("Connecting is refused until you start it here.")).to_be_visible()
    await alice.picture("ssh-page")
    await alice.page.get_by_role("button", name="Start it when connecting").click()
    await expect(alice.page.get_by_text("Connecting starts it.")).to_be_visible()
    await alice.page.get_by_role("button", name="Set up this computer").click()
    await expect(alice.page.locator("#setup-command")).to_contain_text("/script\"' | sh -c 's=$(curl -fsS ")
    await alice.picture("ssh-setup")


async def test_the_keys_say_when_they_were_used(stage: Stage, alice: Visitor, key: str) -> None:
    await alice.go("/hub/ssh-keys")
    await alice.page.get_by_label("Public key").fill(key)
    await alice.page.get_by_role("button", name="Add the key").click()
    await expect(alice.page.locator(".ml-people")).to_contain_text("not used yet")
    detail = {"client": "198.51.100.7", "method": "key", "fingerprint": parse(key).fingerprint}
    opened = EventKind.SESSION_OPENED
    await stage.bus.emit(Event(kind=opened, workspace=workspace("alice"), requester="user:alice", detail=dict(detail)))
    await asyncio.sleep(0.5)
    await alice.go("/hub/ssh-keys")
    await expect(alice.page.locator(".ml-people")).to_contain_text("from 198.51.100.7")
    await alice.picture("ssh-keys-used")


async def test_the_sessions_are_followed_and_ended(stage: Stage, alice: Visitor, key: str, chrome: Browser) -> None:
    page = alice.page

    async def end(query: EndSession) -> OpenSession:
        entry = await stage.bus.sessions.get(query.id)
        assert entry is not None
        await stage.bus.sessions.delete(query.id)
        return entry.value

    await stage.bus.answer(END_SESSION, EndSession, end, node="gateway1")

    async def enter(id: str, who: str, server: str = "", **fields: object) -> None:
        values = {"id": id, "gateway": "gateway1", "requester": who, "workspace": workspace("alice", server)}
        values |= {"client": "198.51.100.7", "method": "key", "opened_at": now() - timedelta(minutes=12)} | fields
        await stage.bus.sessions.put(id, OpenSession.model_validate(values), ttl=timedelta(minutes=5))

    await alice.go("/hub/sessions")
    await expect(page.get_by_text("Nobody is in by SSH now.")).to_be_visible()
    await alice.picture("sessions-none")
    await enter("one", "user:alice", "gpu1", fingerprint=parse(key).fingerprint, bytes_in=1536, bytes_out=80 * 1024**2)
    await expect(page.locator("#session-one")).to_contain_text("alice@laptop")
    await enter("two", "user:admin", client="2001:db8:85a3::8a2e:370:7334", method="token")
    await enter("three", "service:automation", "gpu1", fingerprint="SHA256:" + "x" * 43)
    await expect(page.locator("#session-three")).to_be_visible()
    summary = page.locator("#session-one summary")
    await summary.focus()
    await enter("one", "user:alice", "gpu1", fingerprint=parse(key).fingerprint, bytes_in=4096, bytes_out=90 * 1024**2)
    await expect(page.locator("#session-one")).to_contain_text("4.0 KiB / 90 MiB")
    await expect(summary).to_be_focused()
    await alice.picture("sessions")
    await summary.click()
    await alice.picture("sessions-end", themes=("light",))
    await page.get_by_role("button", name="End your session").click()
    await expect(page.locator("#session-one")).to_have_count(0)
    async with visitor(chrome, stage.hub.url) as boss:
        await boss.login("admin", ADMIN_PASSWORD)
        await boss.go("/hub/sessions")
        await expect(boss.page.locator("#session-two")).to_contain_text("you")
        await boss.picture("sessions-admin")
        await boss.go("/hub/workspaces/ssh?user=alice&server=gpu1")
        await expect(boss.page.get_by_text("your own")).to_be_visible()
        await boss.picture("ssh-of-another")
        assert not boss.complaints


async def test_the_tools_are_looked_for_when_they_are_asked_for(stage: Stage, alice: Visitor) -> None:
    async def ports(query: ListPorts) -> Ports:
        found = [(3000, "node"), (5173, "vite --host with a very long name of its own"), (8501, "streamlit")]
        return Ports(ports=[Port(port=port, program=program) for port, program in found])

    await stage.bus.answer(LIST_PORTS, ListPorts, ports, node=NODE)
    await alice.go("/hub/home")
    dialog = await choose(alice, "Tools")
    await expect(dialog.get_by_role("link", name="8501")).to_have_attribute("href", "/user/alice/gpu1/tools/8501/")
    await alice.picture("tools")
    await alice.page.keyboard.press("Escape")
    await expect(row(alice).locator(".ml-menu > summary")).to_be_focused()
    spec = stage.worker.spawns_of("ws-alice-test-gpu1")[-1].spec.model_copy(update={"own_tools": True, "own_ssh": True})
    await stage.worker.move("ws-alice-test-gpu1", Phase.READY, spec=spec)
    dialog = await choose(alice, "Tools")
    await expect(dialog.get_by_role("link", name="VS Code")).to_be_visible()
    await alice.picture("tools-own")


async def test_the_form_asks_whether_ssh_starts_it(stage: Stage, alice: Visitor) -> None:
    await alice.go("/hub/new-workspace")
    await expect(alice.page.get_by_label("Connecting by SSH starts it")).to_be_checked()
    await alice.picture("new-ssh", themes=("light",))
    await alice.page.locator("#name").fill("tools")
    await alice.page.get_by_role("button", name="Create and start").click()
    await expect(alice.page.locator("#name-error")).to_contain_text("part of the addresses")
    alice.complaints.clear()  # the browser's line about the 400
