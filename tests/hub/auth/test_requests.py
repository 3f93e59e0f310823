"""A request for an account under the name of a user that there is already."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from jupyterhub import orm
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from mlhub_hub.auth import accounts
from mlhub_hub.auth.key_projection import wanted_keys
from mlhub_hub.auth.tables import Approval, SshKeyRow, create_tables
from mlhub_shared.runtime.clock import utc_now
from tests.hub.conftest import Stage
from tests.hub.web import WebSession
from tests.support.hub_process import ADMIN_PASSWORD

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD = "a rather long one"
WARNING = "a user of this name exists"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def admin(stage: Stage) -> AsyncIterator[WebSession]:
    session = WebSession(stage.hub.url, address="192.0.2.99")
    assert (await session.login("admin", ADMIN_PASSWORD)).status_code == 302
    yield session
    await session.close()


@pytest_asyncio.fixture(loop_scope="module")
async def stranger(stage: Stage) -> AsyncIterator[WebSession]:
    session = WebSession(stage.hub.url)
    yield session
    await session.close()


async def decide(admin: WebSession, name: str, decision: str) -> None:
    assert (await admin.post("approvals", name=name, decision=decision)).status_code == 302


async def row_of(admin: WebSession, name: str) -> str:
    """What the page of approvals says of an account."""
    before, _, after = (await admin.get("approvals")).text.partition(f"<strong>{name}</strong>")
    assert after, f"{name} is not on the page: {before[-500:]}"
    return after.split("</li>")[0]


async def can_spawn(stage: Stage, name: str) -> bool:
    """By his own token, and by an administrator's."""
    own = await stage.token_of(name)
    for api, server in ((own, "by-himself"), (stage.api, "by-the-admin")):
        if await api.status("POST", f"/users/{name}/servers/{server}", {}) not in {201, 202}:
            return False
        await stage.until_ready(name, server)
        await stage.api.response("DELETE", f"/users/{name}/servers/{server}")
        await stage.until_gone(name, server)
    return True


async def test_a_strangers_request_changes_nothing_for_the_user_of_that_name(
    stage: Stage, admin: WebSession, stranger: WebSession
) -> None:
    await stage.user("carol")
    token = await stage.token_of("carol")
    await stranger.sign_up("carol", PASSWORD)
    assert await can_spawn(stage, "carol")
    assert (await stranger.login("carol", PASSWORD)).status_code == 403
    await decide(admin, "carol", "reject")
    assert await can_spawn(stage, "carol")
    assert await token.status("GET", "/users/carol") == 200
    assert (await stranger.login("carol", PASSWORD)).status_code == 403
    assert not await stranger.is_logged_in()


async def test_what_was_approved_once_can_still_be_withdrawn(
    stage: Stage, admin: WebSession, stranger: WebSession
) -> None:
    await stage.user("dora")
    token = await stage.token_of("dora")
    await stranger.sign_up("dora", PASSWORD)
    await decide(admin, "dora", "approve")
    assert (await stranger.login("dora", PASSWORD)).status_code == 302
    for _ in range(2):
        await decide(admin, "dora", "reject")
        assert not await stranger.is_logged_in()
        assert "withdrawn" in (await stranger.login("dora", PASSWORD)).text
        assert await stage.api.status("POST", "/users/dora/server", {}) == 403
        assert await token.status("GET", "/users/dora") in {403, 404}
    await decide(admin, "dora", "approve")
    assert await token.status("GET", "/users/dora") == 200


async def test_the_page_warns_before_a_users_name_is_given_to_whoever_asked(
    stage: Stage, admin: WebSession, stranger: WebSession
) -> None:
    await stage.user("erin")
    for name in ("erin", "nobody-yet"):
        await stranger.sign_up(name, PASSWORD)
    assert WARNING in await row_of(admin, "erin")
    assert WARNING not in await row_of(admin, "nobody-yet")
    await decide(admin, "erin", "reject")
    assert WARNING in await row_of(admin, "erin")
    await decide(admin, "erin", "approve")
    assert WARNING not in await row_of(admin, "erin")


async def test_a_rejected_request_does_not_keep_the_name_from_its_owner(
    stage: Stage, admin: WebSession, stranger: WebSession
) -> None:
    await stranger.sign_up("frank", PASSWORD)
    await decide(admin, "frank", "reject")
    await stranger.sign_up("frank", "of the real frank")
    assert (await stranger.login("frank", "of the real frank")).status_code == 403
    await decide(admin, "frank", "approve")
    assert (await stranger.login("frank", PASSWORD)).status_code == 403
    assert (await stranger.login("frank", "of the real frank")).status_code == 302
    await decide(admin, "frank", "reject")
    await stranger.sign_up("frank", PASSWORD)
    await decide(admin, "frank", "approve")
    assert (await stranger.login("frank", PASSWORD)).status_code == 403


@pytest.mark.parametrize(
    ("decisions", "stays"), [("", True), ("r", True), ("a", True), ("ar", False), ("arr", False), ("ara", True)]
)
async def test_only_a_withdrawn_account_takes_the_ssh_keys_of_its_name(decisions: str, *, stays: bool) -> None:
    engine = create_engine("sqlite://")
    orm.Base.metadata.create_all(engine)
    create_tables(engine)
    now = utc_now()
    with Session(engine) as db:
        db.add(orm.User(name="gina"))
        db.add(SshKeyRow(fingerprint="SHA256:x", user="gina", label="x", public_key="ssh-ed25519 x", added_at=now))
        accounts.sign_up(db, "gina", "hash", open_signup=True, admins=set(), now=now)
        for decision in decisions:
            approval = Approval.APPROVED if decision == "a" else Approval.REJECTED
            accounts.decide(db, "gina", approval, by="admin", now=now)
        assert bool(wanted_keys(db)) is stays
    engine.dispose()
