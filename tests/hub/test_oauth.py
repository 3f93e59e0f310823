"""How a workspace learns who opens it: by its OAuth client at the hub."""

import pytest

from tests.hub.browser import browser_of
from tests.hub.conftest import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_workspace_exchanges_a_code_by_its_own_token_only(stage: Stage) -> None:
    await stage.api("POST", "/users/admin/server", expect=202)
    await stage.until_ready("admin")
    entry = await stage.bus.secrets.get("ws-admin-test")
    assert entry is not None
    env = entry.value.env
    callback = env["JUPYTERHUB_OAUTH_CALLBACK_URL"]
    query = {"client_id": env["JUPYTERHUB_CLIENT_ID"], "redirect_uri": callback, "response_type": "code", "state": "s"}
    async with browser_of(stage) as browser:
        answer = await browser.get("/hub/api/oauth2/authorize", params=query)
        assert answer.status_code == 302, answer.text[-2000:]
        assert answer.headers["Location"].startswith(callback)
        form = {
            "client_id": env["JUPYTERHUB_CLIENT_ID"],
            "client_secret": "0" * 32,
            "grant_type": "authorization_code",
            "code": answer.headers["Location"].split("code=")[1].split("&")[0],
            "redirect_uri": callback,
        }
        assert (await browser.post("/hub/api/oauth2/token", data=form)).status_code in {400, 401, 403}
        answer = await browser.post("/hub/api/oauth2/token", data=form | {"client_secret": env["JUPYTERHUB_API_TOKEN"]})
        assert answer.status_code == 200, answer.text
        assert answer.json()["access_token"]


async def test_a_login_leads_to_the_list_and_starts_nothing(stage: Stage) -> None:
    before = len(stage.worker.commands)
    async with browser_of(stage) as browser:
        answer = await browser.get("/hub/")
        assert answer.status_code == 302
        assert answer.headers["Location"].endswith("/hub/home")
        assert (await browser.get("/hub/home")).status_code == 200
    assert len(stage.worker.commands) == before
