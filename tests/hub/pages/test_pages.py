"""The pages over HTTP, without any JavaScript."""

import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from html import unescape
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
import pytest_asyncio

from mlhub_shared.contracts.workspace import Phase, Reason
from tests.hub.conftest import Stage
from tests.hub.pages.conftest import approved, now
from tests.hub.web import WebSession, field_error
from tests.support.waiting import until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}"


class Active(HTMLParser):
    """Finds what a page would run or style by itself."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "script" and "src" not in values:
            self.found.append("<script>")
        if values.get("src") == "x":
            self.found.append("a tag of somebody's")
        self.found += [name for name in values if name.startswith("on") or name == "style"]
        self.found += [str(value) for value in values.values() if str(value).strip().lower().startswith("javascript:")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def alice(stage: Stage, admin: WebSession) -> AsyncIterator[WebSession]:
    session = await approved(stage, admin, "alice")
    yield session
    await session.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bob(stage: Stage, admin: WebSession) -> AsyncIterator[WebSession]:
    session = await approved(stage, admin, "bob")
    yield session
    await session.close()


def row(page: str, key: str) -> str:
    """The row of a workspace on a home page, as text."""
    found = re.search(
        rf'<li class="ml-workspace" id="{key}".*?(?=<li class="ml-workspace"|</ul>\s*<p)', page, re.DOTALL
    )
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", found[0])).split()) if found else ""


async def act(session: WebSession, action: str, server: str, *, user: str = "alice") -> httpx.Response:
    return await session.post(f"workspaces/{action}", form=f"home?user={user}", user=user, server=server)


async def make(session: WebSession, name: str, **fields: Any) -> httpx.Response:
    return await session.post("new-workspace", name=name, **fields)


async def test_a_workspace_is_made_opened_stopped_started_and_deleted(stage: Stage, alice: WebSession) -> None:
    answer = await make(alice, "gpu1", display_name="Grad  descent", cpu_limit="2", mem_limit="4", days_to_live="2")
    assert answer.status_code == 302
    assert answer.headers["location"].startswith("/hub/spawn-pending/alice/gpu1")
    await stage.until_ready("alice", "gpu1")
    shown = row((await alice.get("home")).text, "ws-alice-test-gpu1")
    assert shown.startswith("Grad descent gpu1 Ready Has 2 cores · 4 GiB")
    assert "Open" in shown
    assert (await act(alice, "stop", "gpu1")).headers["location"] == "/hub/home"
    await stage.until_phase("ws-alice-test-gpu1", Phase.STOPPED)
    again = await act(alice, "start", "gpu1")
    assert again.headers.get("location") == "/hub/spawn-pending/alice/gpu1", again.text
    await stage.until_ready("alice", "gpu1")
    [first, second] = stage.worker.spawns_of("ws-alice-test-gpu1")
    assert first.spec == second.spec, "a plain start keeps the options"
    confirm = await alice.get("workspaces/confirm-delete", user="alice", server="gpu1")
    assert "Delete Grad descent and its files" in confirm.text
    assert (await act(alice, "delete", "gpu1")).status_code == 302

    async def is_gone() -> bool:
        return not row((await alice.get("home")).text, "ws-alice-test-gpu1")

    await until_async(is_gone)


async def test_mistakes_come_back_beside_their_fields_with_what_was_typed(stage: Stage, alice: WebSession) -> None:
    answer = await make(
        alice, "A--b", cpu_limit="99", mem_limit="0.25", env_name=["1X"], env_value=["v"], env_kind=["plain"]
    )
    assert answer.status_code == 400
    assert "rule" in str(field_error(answer.text, "name"))
    assert field_error(answer.text, "cpu_limit") == "Must be at most 8 cores."
    assert "not a name" in str(field_error(answer.text, "env"))
    for value in ('value="A--b"', 'value="99"', 'value="0.25"', 'value="1X"'):
        assert value in answer.text
    assert not stage.worker.spawns_of("ws-alice-test-A--b")


async def test_a_name_is_taken_once(stage: Stage, alice: WebSession) -> None:
    assert (await make(alice, "once")).status_code == 302
    again = await make(alice, "once")
    assert again.status_code == 400
    assert field_error(again.text, "name") == "There is a workspace of this name already."


async def test_secrets_are_kept_and_never_shown(stage: Stage, alice: WebSession) -> None:
    rows: dict[str, Any] = {"env_name": ["PLAIN", "HUSH"], "env_kind": ["plain", "secret"]}
    await make(alice, "hush", **rows, env_value=["seen", "canary-1"])
    await stage.until_ready("alice", "hush")
    entry = await stage.bus.secrets.get("ws-alice-test-hush")
    assert entry is not None
    assert entry.value.secret_env == {"HUSH": "canary-1"}
    await act(alice, "stop", "hush")
    await stage.until_gone("alice", "hush")
    page = await alice.get("spawn/alice/hush")
    assert 'value="HUSH"' in page.text
    assert "stored, not shown" in page.text
    assert "canary-1" not in page.text
    assert (await alice.post("spawn/alice/hush", **rows, env_value=["changed", ""])).status_code == 302
    await stage.until_ready("alice", "hush")
    entry = await stage.bus.secrets.get("ws-alice-test-hush")
    assert entry is not None
    assert entry.value.secret_env == {"HUSH": "canary-1"}
    assert stage.worker.spawns_of("ws-alice-test-hush")[-1].spec.env == {"PLAIN": "changed"}
    assert "canary-1" not in stage.hub.log.read_text()


async def test_a_failure_shows_its_reason_and_log_in_place(stage: Stage, alice: WebSession) -> None:
    await make(alice, "broken")
    await stage.until_ready("alice", "broken")
    name = "ws-alice-test-broken"
    await stage.worker.move(name, Phase.FAILED, reason=Reason.EXITED, message="Exit code 1.", log_tail=HOSTILE)
    await stage.until_gone("alice", "broken")
    page = (await alice.get("home")).text
    assert HOSTILE in row(page, name)
    assert "Exit code 1. Last lines of its log" in row(page, name)
    assert "Try again" in row(page, name)
    assert "<script>alert" not in page


async def test_extend_asks_the_worker_and_stays_within_the_policy(stage: Stage, alice: WebSession) -> None:
    await make(alice, "long", days_to_live="4")
    await stage.until_ready("alice", "long")
    name, ends = "ws-alice-test-long", now() + timedelta(minutes=10)
    await stage.worker.move(name, Phase.READY, expires_at=ends)

    async def is_warned() -> bool:
        return "Expires soon" in row((await alice.get("home")).text, name)

    await until_async(is_warned)
    assert (await act(alice, "extend", "long")).status_code == 302
    record = await stage.worker.record(name)
    assert record is not None
    assert record.expires_at is not None
    assert record.expires_at == ends + timedelta(days=4)
    await until_async(lambda: not_in(alice, name, "Expires soon"))
    assert (await act(alice, "extend", "long")).status_code == 302
    record = await stage.worker.record(name)
    assert record is not None
    assert record.expires_at is not None
    assert record.expires_at <= now() + timedelta(days=7)
    answer = await act(alice, "extend", "once")
    assert answer.status_code == 409


async def not_in(session: WebSession, name: str, text: str) -> bool:
    return text not in row((await session.get("home")).text, name)


async def test_the_queue_shows_places(stage: Stage, alice: WebSession, bob: WebSession) -> None:
    stage.worker.spawn_until = Phase.QUEUED
    try:
        await make(alice, "first")
        await make(bob, "second")
        await stage.until_phase("ws-bob-test-second", Phase.QUEUED)

        async def has_place() -> bool:
            return "Queued, 2nd" in row((await bob.get("home")).text, "ws-bob-test-second")

        await until_async(has_place)
        pending = await bob.get("spawn-pending/bob/second")
        assert "2nd in line" in pending.text
        assert (await act(bob, "stop", "second", user="bob")).status_code == 302
        await stage.until_phase("ws-bob-test-second", Phase.STOPPED)
    finally:
        stage.worker.spawn_until = Phase.READY
        await act(alice, "stop", "first")


async def test_users_see_and_touch_only_their_own(stage: Stage, alice: WebSession, bob: WebSession) -> None:
    await make(alice, "mine")
    await stage.until_ready("alice", "mine")
    for path in (
        "home?user=alice",
        "mlhub/events?user=alice",
        "mlhub/progress?user=alice&server=mine",
        "new-workspace?user=alice",
        "workspaces/ssh?user=alice&server=mine",
        "workspaces/confirm-delete?user=alice&server=mine",
        "spawn/alice/mine",
        "spawn-pending/alice/mine",
        "home?user=nobody-of-this-name",
    ):
        answer = await bob.get(path)
        assert answer.status_code == 404, path
        assert "mine" not in answer.text
    for action in ("start", "stop", "delete", "extend"):
        answer = await bob.post(f"workspaces/{action}", form="home", user="alice", server="mine")
        assert answer.status_code == 404, action
    record = await stage.worker.record("ws-alice-test-mine")
    assert record is not None
    assert record.phase is Phase.READY


async def test_an_admin_makes_and_hands_out_workspaces_for_others(stage: Stage, admin: WebSession) -> None:
    page = await admin.get("home", user="bob")
    assert "Workspaces of bob" in page.text
    answer = await admin.post("new-workspace?user=bob", name="gift", cpu_limit="1")
    assert answer.headers["location"].startswith("/hub/spawn-pending/bob/gift")
    await stage.until_ready("bob", "gift")
    [spawn] = stage.worker.spawns_of("ws-bob-test-gift")
    assert (spawn.workspace.user, spawn.requester) == ("bob", "user:admin")


async def test_nothing_happens_without_the_token_of_a_form(stage: Stage, alice: WebSession) -> None:
    fields = {"user": "alice", "server": "mine", "name": "forged", "action": "add", "public_key": "x"}
    for path in (
        "workspaces/stop",
        "workspaces/delete",
        "workspaces/extend",
        "workspaces/update",
        "nodes",
        "new-workspace",
        "spawn/alice/hush",
        "ssh-keys",
        "account",
    ):
        assert (await alice.http.post(f"/hub/{path}", data=fields)).status_code == 403, path
    for path in ("workspaces/stop", "workspaces/start", "workspaces/update"):
        assert (await alice.get(path, user="alice", server="mine")).status_code == 405, path


async def test_a_stranger_is_sent_to_the_login(stage: Stage) -> None:
    stranger = WebSession(stage.hub.url)
    for path in (
        "home",
        "new-workspace",
        "ssh-keys",
        "account",
        "approvals",
        "spawn-pending/alice/mine",
        "mlhub/events",
    ):
        answer = await stranger.get(path)
        assert answer.status_code == 302, path
        assert answer.headers["location"].startswith("/hub/login"), path
    await stranger.close()


async def test_no_page_runs_a_script_that_stands_in_it(stage: Stage, admin: WebSession, alice: WebSession) -> None:
    await make(alice, "hostile", display_name="x &lt;b&gt;", env_name=["A"], env_value=[HOSTILE], env_kind=["plain"])
    await stage.until_ready("alice", "hostile")
    await act(alice, "stop", "hostile")
    await stage.until_gone("alice", "hostile")
    pages = [
        (alice, "home"),
        (alice, "new-workspace"),
        (alice, "spawn/alice/hostile"),
        (alice, "spawn-pending/alice/hostile"),
        (alice, "workspaces/ssh?user=alice&server=hostile"),
        (alice, "workspaces/confirm-delete?user=alice&server=hostile"),
        (alice, "ssh-keys"),
        (alice, "account"),
        (alice, "token"),
        (admin, "approvals"),
        (admin, "admin"),
        (alice, "no-such-page"),
        (WebSession(stage.hub.url), "login"),
        (WebSession(stage.hub.url), "signup"),
    ]
    for session, path in pages:
        answer = await session.get(path)
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self';" in policy, path
        assert "frame-ancestors 'none'" in policy, path
        if path != "token":  # JupyterHub's own page hides one box with an inline style
            assert Active(answer.text).found == [], path
    for session, _ in pages[-2:]:
        await session.close()


async def test_the_ssh_dialog_has_the_exact_command(stage: Stage, alice: WebSession) -> None:
    fragment = await alice.get("workspaces/ssh", user="alice", server="mine", fragment="1")
    assert "ssh -p 2222 alice--mine@127.0.0.1" in fragment.text
    assert "<html" not in fragment.text
    assert "You have no SSH key here yet" in fragment.text


async def test_the_home_page_follows_the_records(stage: Stage, alice: WebSession) -> None:
    name = "ws-alice-test-mine"
    async with alice.http.stream("GET", "/hub/mlhub/events?user=alice") as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        updates = (json.loads(line[6:]) async for line in stream.aiter_lines() if line.startswith("data: "))
        first = await anext(updates)
        assert first["rows"].keys() == set(first["order"])
        assert "Ready" in first["rows"][name]
        await stage.worker.move(name, Phase.STARTING, progress=60)
        second = await anext(updates)
        assert second["rows"].keys() == {name}, "only what changed is sent"
        assert "Starting 60 %" in second["rows"][name]
        await stage.worker.move(name, Phase.READY)


async def test_static_files_are_kept_by_browsers(stage: Stage) -> None:
    session = WebSession(stage.hub.url)
    versioned = await session.get("mlhub-static/mlhub.css", v="1")
    assert "max-age" in versioned.headers["cache-control"]
    assert (await session.get("mlhub-static/mlhub.js")).headers["cache-control"] == "no-cache"
    assert (await session.get("mlhub-static/../templates/page.html")).status_code in {403, 404}
    assert (await session.get("mlhub-static/%2e%2e/templates/page.html")).status_code in {403, 404}
    await session.close()
