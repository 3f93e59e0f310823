"""The pages where a team uses the hub in another way, or logs in by other means."""

from pathlib import Path

import pytest

from tests.hub.conftest import make_stage
from tests.hub.pages.conftest import approved
from tests.hub.web import WebSession
from tests.support.hub_process import ADMIN_PASSWORD

pytestmark = pytest.mark.asyncio(loop_scope="module")

DUMMY = """
from jupyterhub.auth import DummyAuthenticator
c.JupyterHub.authenticator_class = DummyAuthenticator
c.Authenticator.allow_all = True
"""


async def test_handed_out_workspaces_are_opened_started_and_stopped_but_not_made(tmp_path: Path) -> None:
    async for stage in make_stage(tmp_path, MLHUB_HUB_WORKSPACES="handed-out"):
        admin = WebSession(stage.hub.url)
        await admin.login("admin", ADMIN_PASSWORD)
        user = await approved(stage, admin, "alice")
        empty = (await user.get("home")).text
        assert "An administrator hands out workspaces here" in empty
        assert "New workspace" not in empty
        assert 'class="ml-workspace"' not in empty
        assert (await user.get("new-workspace")).status_code == 403
        assert "New workspace" in (await admin.get("home", user="alice")).text
        assert (await admin.post("new-workspace?user=alice", name="gift")).status_code == 302
        await stage.until_ready("alice", "gift")
        page = (await user.get("home")).text
        assert ">Open<" in page
        for offer in ("New workspace", "Options and start", "Delete"):
            assert offer not in page, offer
        fields = {"user": "alice", "server": "gift"}
        assert (await user.post("workspaces/delete", form="home", **fields)).status_code == 403
        assert (await user.post("workspaces/stop", form="home", **fields)).status_code == 302
        await stage.until_gone("alice", "gift")
        assert (await user.post("spawn/alice/gift", form="home", cpu_limit="1")).status_code == 403
        assert (await user.get("spawn/alice/gift?opt-cpu_limit=1")).status_code == 403
        assert len(stage.worker.spawns_of("ws-alice-test-gift")) == 1
        assert (await user.post("workspaces/start", form="home", **fields)).status_code == 302
        await stage.until_ready("alice", "gift")
        await user.close()
        await admin.close()


async def test_one_workspace_each_can_be_changed_but_not_added_to(tmp_path: Path) -> None:
    async for stage in make_stage(tmp_path, MLHUB_HUB_WORKSPACES="one-each"):
        admin = WebSession(stage.hub.url)
        await admin.login("admin", ADMIN_PASSWORD)
        user = await approved(stage, admin, "alice")
        page = (await user.get("home")).text
        assert "New workspace" not in page
        assert "Options and start" in page
        assert (await user.get("new-workspace")).status_code == 403
        assert (await user.post("spawn/alice", cpu_limit="1")).status_code == 302
        await stage.until_ready("alice")
        assert (await admin.post("new-workspace?user=alice", name="extra")).status_code == 302
        await user.close()
        await admin.close()


async def test_another_authenticator_hides_sign_up_and_passwords(tmp_path: Path) -> None:
    config = tmp_path / "jupyterhub_user_config.py"
    config.write_text(DUMMY)
    async for stage in make_stage(tmp_path, MLHUB_HUB_USER_CONFIG=str(config)):
        session = WebSession(stage.hub.url)
        assert "signup" not in (await session.get("login")).text
        assert (await session.get("signup")).status_code == 404
        assert (await session.login("admin", "anything")).status_code == 302
        home = (await session.get("home")).text
        assert "approvals" not in home
        assert "Change the password" not in (await session.get("account")).text
        assert (await session.get("approvals")).status_code == 404
        assert (await session.get("ssh-keys")).status_code == 200
        assert (await session.get("admin")).status_code == 200
        assert (await session.post("new-workspace", name="gpu1")).status_code == 302
        await stage.until_ready("admin", "gpu1")
        await session.close()


async def test_open_sign_up_lets_everybody_in_but_gives_no_name_away(tmp_path: Path) -> None:
    async for stage in make_stage(tmp_path, MLHUB_HUB_OPEN_SIGNUP="true"):
        await stage.user("made-by-an-admin")
        session = WebSession(stage.hub.url)
        password = "a rather long one"
        assert "Your account is ready" in (await session.sign_up("alice", password)).text
        assert (await session.login("alice", password)).status_code == 302
        for name in ("admin", "made-by-an-admin"):
            stranger = WebSession(stage.hub.url)
            await stranger.sign_up(name, password)
            assert (await stranger.login(name, password)).status_code == 403, name
            await stranger.close()
        await session.close()
