"""Who comes in: sign-up, approval, lock-out and passwords, over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.subjects import NO_WORKSPACE
from tests.hub.conftest import Stage
from tests.hub.web import WebSession, field_error, whole
from tests.support.hub_process import ADMIN_PASSWORD

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD = "a rather long one"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def admin(stage: Stage) -> AsyncIterator[WebSession]:
    session = WebSession(stage.hub.url, address="192.0.2.99")
    assert (await session.login("admin", ADMIN_PASSWORD)).status_code == 302
    yield session
    await session.close()


@pytest_asyncio.fixture(loop_scope="module")
async def web(stage: Stage) -> AsyncIterator[WebSession]:
    session = WebSession(stage.hub.url)
    yield session
    await session.close()


async def decide(admin: WebSession, name: str, decision: str = "approve") -> int:
    return (await admin.post("approvals", name=name, decision=decision)).status_code


async def test_a_new_user_gets_in_only_after_approval(stage: Stage, admin: WebSession, web: WebSession) -> None:
    assert "Your request is in" in (await web.sign_up("Alice", PASSWORD)).text
    waiting = await web.login("alice", PASSWORD)
    assert waiting.status_code == 403
    assert "waits for an administrator" in waiting.text
    assert "alice" in (await admin.get("approvals")).text
    assert await decide(admin, "alice") == 302
    assert (await web.login("ALICE", PASSWORD)).status_code == 302
    assert await web.is_logged_in()


async def test_a_wrong_password_never_tells_whether_there_is_an_account(
    stage: Stage, admin: WebSession, web: WebSession
) -> None:
    await web.sign_up("pending", PASSWORD)
    unknown = await web.login("nobody-of-this-name", "wrong wrong")
    known = await web.login("pending", "wrong wrong")
    assert unknown.status_code == known.status_code == 403
    assert "Invalid username or password" in unknown.text
    assert whole(unknown)["text"].replace("nobody-of-this-name", "pending") == whole(known)["text"]


async def test_a_taken_name_is_answered_like_a_free_one(stage: Stage, admin: WebSession, web: WebSession) -> None:
    first = await web.sign_up("taken", PASSWORD)
    await decide(admin, "taken")
    again = await web.sign_up("taken", "another password")
    assert whole(first) == whole(again)
    assert (await web.login("taken", "another password")).status_code == 403
    assert (await web.login("taken", PASSWORD)).status_code == 302


async def test_a_stranger_does_not_become_admin_by_the_admins_name(stage: Stage, web: WebSession) -> None:
    await web.sign_up("admin", PASSWORD)
    assert (await web.login("admin", PASSWORD)).status_code == 403


@pytest.mark.parametrize("name", ["a--b", "-a", "a/b", "x" * 65, "a\u202eb"])
async def test_hostile_names_are_refused_beside_the_field(stage: Stage, web: WebSession, name: str) -> None:
    answer = await web.sign_up(name, PASSWORD)
    assert answer.status_code == 400
    assert field_error(answer.text, "username")


async def test_weak_and_mistyped_passwords_are_refused_beside_the_field(stage: Stage, web: WebSession) -> None:
    answer = await web.sign_up("weak", "password1", password_again="password2")
    assert answer.status_code == 400
    assert field_error(answer.text, "password")
    assert field_error(answer.text, "password_again") == "The two passwords differ."
    assert "password1" not in answer.text


async def test_approval_takes_a_form_of_an_admin(stage: Stage, admin: WebSession, web: WebSession) -> None:
    await web.sign_up("eve", PASSWORD)
    query = {"name": "eve", "decision": "approve"}
    assert (await admin.get("approvals", **query)).status_code == 200
    assert (await admin.http.post("/hub/approvals", data=query)).status_code == 403
    await web.sign_up("mallory", PASSWORD)
    await decide(admin, "mallory")
    await web.login("mallory", PASSWORD)
    assert (await web.get("approvals")).status_code == 403
    token = web.http.cookies.get("_xsrf", path="/hub/")
    assert (await web.http.post("/hub/approvals", data=query | {"_xsrf": str(token)})).status_code == 403
    stranger = WebSession(stage.hub.url)
    assert (await stranger.login("eve", PASSWORD)).status_code == 403
    await stranger.close()


async def test_rejection_and_withdrawal_end_everything_and_can_be_taken_back(
    stage: Stage, admin: WebSession, web: WebSession
) -> None:
    await web.sign_up("bob", PASSWORD)
    await decide(admin, "bob", "reject")
    assert "not approved" in (await web.login("bob", PASSWORD)).text
    await decide(admin, "bob")
    await web.login("bob", PASSWORD)
    token = await stage.token_of("bob")
    assert await token.status("GET", "/user") == 200
    await decide(admin, "bob", "reject")
    assert not await web.is_logged_in()
    assert await token.status("GET", "/users/bob") in {403, 404}
    await decide(admin, "bob")
    assert (await web.login("bob", PASSWORD)).status_code == 302
    assert await token.status("GET", "/users/bob") == 200


async def test_an_admin_can_not_lock_himself_out(stage: Stage, admin: WebSession) -> None:
    assert await decide(admin, "admin", "reject") == 400
    assert await admin.is_logged_in()


async def test_failures_lock_the_name_for_that_address_alone_and_over_a_restart(
    stage: Stage, admin: WebSession
) -> None:
    here, there = (WebSession(stage.hub.url, address=address) for address in ("198.51.100.7", "203.0.113.9"))
    await there.sign_up("carol", PASSWORD)
    await decide(admin, "carol")
    for _ in range(5):
        assert (await here.login("carol", "wrong wrong")).status_code == 403
    locked = await here.login("carol", PASSWORD)
    assert locked.status_code == 429
    assert "Try again in" in locked.text
    assert (await here.login("somebody-else", PASSWORD)).status_code == 403
    assert (await there.login("carol", PASSWORD)).status_code == 302
    await stage.hub.kill()
    await stage.hub.start()
    assert (await here.login("carol", PASSWORD)).status_code == 429
    await asyncio.gather(here.close(), there.close())


async def test_an_address_that_tries_many_names_is_locked(stage: Stage) -> None:
    session = WebSession(stage.hub.url, address="198.51.100.50")
    codes = [(await session.login(f"name{number}", "wrong wrong")).status_code for number in range(51)]
    assert codes == [403] * 50 + [429]
    await session.close()


async def test_many_attempts_at_once_learn_no_more_than_the_limit_allows(stage: Stage, admin: WebSession) -> None:
    session = WebSession(stage.hub.url, address="198.51.100.60")
    await session.sign_up("dave", PASSWORD)
    await decide(admin, "dave")
    guesses = [f"wrong wrong {number}" for number in range(30)] + [PASSWORD]
    page = await session.get("login")
    xsrf = page.text.split('name="_xsrf" value="')[1].split('"')[0]
    form = [{"username": "dave", "password": guess, "_xsrf": xsrf} for guess in guesses]
    answers = await asyncio.gather(*(session.http.post("/hub/login", data=data) for data in form))
    codes = [answer.status_code for answer in answers]
    assert codes.count(403) <= 6
    assert codes[-1] == 429
    await session.close()


async def test_a_new_password_ends_the_other_sessions(stage: Stage, admin: WebSession, web: WebSession) -> None:
    await web.sign_up("frank", PASSWORD)
    await decide(admin, "frank")
    other = WebSession(stage.hub.url)
    for session in (web, other):
        await session.login("frank", PASSWORD)
    new = {"password": "a new long one", "password_again": "a new long one"}
    wrong = await web.post("account", current="not it, no", **new)
    assert wrong.status_code == 400
    assert field_error(wrong.text, "current") == "This is not your password."
    assert (await web.post("account", current=PASSWORD, **new)).status_code == 302
    assert await web.is_logged_in()
    assert not await other.is_logged_in()
    assert (await other.login("frank", PASSWORD)).status_code == 403
    assert (await other.login("frank", "a new long one")).status_code == 302
    await other.close()


async def test_a_deleted_user_is_gone_for_good(stage: Stage, admin: WebSession, web: WebSession) -> None:
    await web.sign_up("gone", PASSWORD)
    await decide(admin, "gone")
    await web.login("gone", PASSWORD)
    assert await stage.api.status("DELETE", "/users/gone") == 204
    assert not await web.is_logged_in()
    answer = await web.login("gone", PASSWORD)
    assert answer.status_code == 403
    assert "Invalid" in answer.text


async def test_an_account_moves_with_a_renamed_user(stage: Stage, admin: WebSession, web: WebSession) -> None:
    await web.sign_up("oldname", PASSWORD)
    await web.sign_up("newname", "of a stranger")
    await decide(admin, "oldname")
    await web.login("oldname", PASSWORD)
    await stage.api("PATCH", "/users/oldname", {"name": "newname"}, expect=200)
    fresh = WebSession(stage.hub.url)
    assert (await fresh.login("newname", "of a stranger")).status_code == 403
    assert (await fresh.login("newname", PASSWORD)).status_code == 302
    await fresh.close()


async def test_what_happens_to_people_is_in_the_audit_stream(stage: Stage, admin: WebSession, web: WebSession) -> None:
    since = datetime.now(UTC)
    await web.sign_up("heidi", PASSWORD)
    await decide(admin, "heidi")
    await web.login("heidi", PASSWORD)
    await decide(admin, "heidi", "reject")
    seen: list[tuple[EventKind, str]] = []
    async with asyncio.timeout(30), aclosing(stage.bus.replay(NO_WORKSPACE, since=since)) as replay:
        async for event in replay:
            assert PASSWORD not in event.model_dump_json()
            if event.user == "heidi":
                seen.append((event.kind, event.requester))
            if len(seen) == 4:
                break
    assert seen == [
        (EventKind.USER_SIGNED_UP, "user:heidi"),
        (EventKind.USER_APPROVED, "user:admin"),
        (EventKind.USER_LOGGED_IN, "user:heidi"),
        (EventKind.USER_REJECTED, "user:admin"),
    ]


async def test_no_password_reaches_the_log(stage: Stage) -> None:
    for secret in (PASSWORD, ADMIN_PASSWORD, "a new long one"):
        assert secret not in stage.hub.log.read_text()
