"""Whom a workspace asks the hub about, and who may not open it."""

import asyncio
from contextlib import aclosing

import pytest

from mlhub_shared.contracts.events import Event, EventKind
from tests.hub.conftest import Stage
from tests.hub.web import WebSession
from tests.support.makers import NOW

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD = "a long enough pass phrase"


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {"MLHUB_HUB_OPEN_SIGNUP": "true"}


async def test_who_may_not_open_a_workspace_is_refused_and_that_is_told_once(stage: Stage) -> None:
    await stage.user("alice")
    await stage.api("POST", "/users/alice/server", expect=202)
    await stage.until_ready("alice")
    entry = await stage.bus.secrets.get("ws-alice-test")
    assert entry is not None
    env = entry.value.env
    query = {
        "client_id": env["JUPYTERHUB_CLIENT_ID"],
        "redirect_uri": env["JUPYTERHUB_OAUTH_CALLBACK_URL"],
        "response_type": "code",
        "state": "s",
    }
    bob = WebSession(stage.hub.url.replace("127.0.0.1", "localhost"), address="198.51.100.8")
    await bob.sign_up("bob", PASSWORD)
    await bob.login("bob", PASSWORD)
    for _ in range(2):
        assert (await bob.get("api/oauth2/authorize", **query)).status_code == 403
    await bob.close()
    [event] = await denials(stage)
    assert event.requester == "user:bob"
    assert (event.detail["client"], event.detail["through"]) == ("198.51.100.8", "web")


async def denials(stage: Stage) -> list[Event]:
    """Those of alice's workspace, when nothing more has come for a second."""
    found: list[Event] = []
    async with aclosing(stage.bus.replay("ws-alice-test", since=NOW)) as replay:
        while True:
            try:
                async with asyncio.timeout(1 if found else 30):
                    event = await anext(event async for event in replay if event.kind is EventKind.ACCESS_DENIED)
            except TimeoutError:
                return found
            found.append(event)
