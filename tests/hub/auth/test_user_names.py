"""The names that administrators and scripts may give to users."""

from urllib.parse import quote

import pytest
from jupyterhub.auth import DummyAuthenticator

from mlhub_hub.config import jupyterhub_config
from mlhub_hub.settings import HubSettings
from mlhub_shared.contracts.identity import WorkspaceId
from tests.hub.conftest import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = ["\0x", "a\nb", "a b", "-x", "a.", "a--b", "a\u202eb", "x" * 65, "x" * 300, "<b>", "%2e%2e", "a:b"]


@pytest.mark.parametrize("name", [*HOSTILE, "Carol"])
async def test_rest_refuses_the_names_that_sign_up_refuses(stage: Stage, name: str) -> None:
    path = f"/users/{quote(name, safe='')}"
    assert await stage.api.status("POST", path) == 400
    assert await stage.api.status("GET", path) == 404


@pytest.mark.parametrize("name", HOSTILE)
async def test_nor_are_they_made_many_at_once_or_by_renaming(stage: Stage, name: str) -> None:
    assert await stage.api.status("POST", "/users", {"usernames": [name]}) == 400
    assert await stage.api.status("PATCH", "/users/admin", {"name": name}) == 400
    assert await stage.api.status("GET", "/users/admin") == 200


@pytest.mark.parametrize("name", ["foo.bar", "a@b.de", "first_last", "a-b+c", "jos\u00e9", "x", "x" * 64])
async def test_ordinary_names_are_made_and_can_start(stage: Stage, name: str) -> None:
    path = f"/users/{quote(name, safe='')}"
    await stage.api("POST", path, expect=201)
    await stage.api("POST", f"{path}/server", {}, expect=202)
    await stage.until_ready(quote(name, safe=""))
    assert await stage.api.status("DELETE", f"{path}/server") in {202, 204}


async def test_many_at_once_are_written_in_the_one_way(stage: Stage) -> None:
    made = await stage.api("POST", "/users", {"usernames": ["Capital", " spaced "]}, expect=201)
    assert [user["name"] for user in made] == ["capital", "spaced"]


async def test_another_authenticator_has_its_own_names_within_what_a_workspace_can_have() -> None:
    authenticator = DummyAuthenticator(config=jupyterhub_config(HubSettings()))
    longest = WorkspaceId(hub="test", user="x" * 255).user
    for name in ("DOMAIN\\Alice Smith", "a--b", "-x", longest):
        assert authenticator.validate_username(name), name
    for name in (longest + "x", "a\nb", "a\n", "\0x"):
        assert not authenticator.validate_username(name), name
