"""How the first admin comes in when no password is set."""

import re
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.hub.conftest import Stage, make_stage
from tests.hub.web import WebSession

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD = "a rather long one"


@pytest_asyncio.fixture(loop_scope="module")
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async for made in make_stage(tmp_path, MLHUB_ADMIN_PASSWORD=""):
        yield made


def printed(stage: Stage) -> list[str]:
    return re.findall(r"signup\?token=([\w-]+)", stage.hub.log.read_text())


async def test_the_link_works_once_and_nothing_else_does(stage: Stage) -> None:
    file = stage.hub.folder / "data" / "first-admin-link.txt"
    [token] = printed(stage)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().strip().endswith(token)
    stranger, owner = WebSession(stage.hub.url), WebSession(stage.hub.url)

    await stranger.sign_up("admin", PASSWORD)
    assert (await stranger.login("admin", PASSWORD)).status_code == 403
    fields = {"username": "admin", "password": PASSWORD, "password_again": PASSWORD}
    assert (await stranger.post("signup", **fields, token="guessed")).status_code == 403
    assert (await stranger.post("signup", **(fields | {"username": "other"}), token=token)).status_code == 403

    await stage.hub.kill()
    await stage.hub.start()
    assert printed(stage) == [token], "the same link holds over a restart"

    assert 'value="admin"' in (await owner.get("signup", token=token)).text
    answer = await owner.post("signup", **fields, token=token)
    assert "Your account is ready" in answer.text
    assert not file.exists()
    assert (await owner.login("admin", PASSWORD)).status_code == 302
    assert (await owner.get("approvals")).status_code == 200

    assert (await stranger.get("signup", token=token)).status_code == 403
    again = fields | {"password": "another long one", "password_again": "another long one"}
    assert (await stranger.post("signup", **again, token=token)).status_code == 403
    await stage.hub.kill()
    await stage.hub.start()
    assert printed(stage) == [token]
    assert not file.exists()
    await stranger.close()
    await owner.close()


async def test_the_database_knows_only_the_hash_and_a_lost_link_is_made_anew(stage: Stage) -> None:
    [token] = printed(stage)
    files = [file for file in (stage.hub.folder / "data").iterdir() if file.name != "first-admin-link.txt"]
    assert not any(token.encode() in file.read_bytes() for file in files)
    await stage.hub.stop()
    (stage.hub.folder / "data" / "first-admin-link.txt").unlink()
    await stage.hub.start()
    [old, new] = printed(stage)
    assert old != new
    session = WebSession(stage.hub.url)
    assert (await session.get("signup", token=old)).status_code == 403
    assert (await session.get("signup", token=new)).status_code == 200
    await session.close()
