"""The users of the first ML Hub come in with the passwords they have."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standalone.old_hub import OldData
from tests.support.stack import Stack

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def moved(tmp_path: Path) -> Iterator[Stack]:
    """A first start on the old folder of data."""
    stack = Stack(tmp_path, MLHUB_ADMIN_PASSWORD="")
    stack.data.root.mkdir(mode=0o700)
    old = OldData(stack.data.root)
    old.sign_up("admin", "the-admins-password")
    old.come_in("admin", admin=True)
    old.sign_up("Foo.Bar", "foo-bars-password")
    old.come_in("foo0bar")
    old.start("foo0bar", "gpu1", {"cpu_limit": "1", "mem_limit": "1", "is_mount_volume": "on", "env": {"A": "b"}})
    old.sign_up("bob", "bobs-password", authorized=False)
    try:
        yield stack.up()
    finally:
        stack.wipe()


def test_they_come_in_as_they_were_and_find_their_workspaces(moved: Stack) -> None:
    assert "+ foo0bar: account, user, default workspace, workspace gpu1" in moved.output.read_text()
    # The admin is one from the first moment on: no link is printed that would make another.
    assert "first admin" not in moved.output.read_text()
    assert moved.session("admin", "the-admins-password").get("/hub/approvals").status_code == 200

    user = moved.session("foo0bar", "foo-bars-password")
    home = user.get("/hub/home").text
    assert "gpu1" in home
    assert user.get("/hub/approvals").status_code == 403
    model = moved.hub.request("GET", "/users/foo0bar", params={"include_stopped_servers": "true"}).json()
    assert model["servers"]["gpu1"]["user_options"]["env"] == {"A": "b"}

    waiting = moved.visitor().login("bob", "bobs-password")
    assert waiting.status_code == 403
    assert "waits for an administrator" in waiting.text

    # Later starts leave everything as it is by then.
    moved.end()
    moved.up()
    assert "Moving in" not in moved.output.read_text()
    assert moved.session("foo0bar", "foo-bars-password").get("/hub/home").status_code == 200
