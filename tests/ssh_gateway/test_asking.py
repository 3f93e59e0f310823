"""Asking the hub again about crowds: soon enough, and no more than it takes."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from pydantic import SecretStr

from mlhub_shared.bus import Bus
from mlhub_shared.runtime.clock import utc_now
from mlhub_shared.tasks import end_tasks
from mlhub_ssh_gateway.access import KEY, TOKEN, Doorkeeper, Login
from mlhub_ssh_gateway.ending import Endings
from mlhub_ssh_gateway.hub_api import HubApi
from mlhub_ssh_gateway.own_keys import OwnKeys
from mlhub_ssh_gateway.sessions import Sessions
from tests.support.hub_api import SERVICE_TOKEN, ScriptedHub
from tests.support.makers import workspace
from tests.support.waiting import until

WHOSE = "GET /hub/api/user"


@dataclass
class Crowd:
    """Sessions without connections, and what asks about them."""

    sessions: Sessions
    ended: dict[str, str] = field(default_factory=dict)
    """Client -> what it was told."""

    def enter(self, login: Login, client: str) -> None:
        def end(sentence: str) -> None:
            self.ended[client] = sentence

        self.sessions.open(login, client, end)

    def by_token(self, token: str, user: str, server: str = "") -> None:
        self.enter(
            Login("user:bob", workspace(user, server), TOKEN, token=SecretStr(token)), f"{token}/{user}/{server}"
        )


@pytest.fixture
async def crowd(bus: Bus, hub: ScriptedHub) -> AsyncIterator[Crowd]:
    """Nobody yet."""
    records, keys = bus.start_table(bus.workspaces), bus.start_table(bus.ssh_keys)
    api = HubApi.open(hub.url, SecretStr(SERVICE_TOKEN), timedelta(seconds=10))
    crowd = Crowd(Sessions(utc_now, lambda event: None, lambda workspace: None))
    doorkeeper = Doorkeeper("test", keys, records, api, OwnKeys(records))
    asking = asyncio.ensure_future(Endings(crowd.sessions, doorkeeper, keys, "gateway").ask_again())
    yield crowd
    await end_tasks(asking)
    await api.close()


async def test_a_crowd_makes_nobodys_end_come_late(crowd: Crowd, hub: ScriptedHub) -> None:
    for number in range(200):
        hub.add_token(f"token-{number}", "bob", "access:servers!user=bob")
        crowd.by_token(f"token-{number}", "bob")
    # The last has been asked about just now.
    await until(lambda: len(hub.asked) >= 200)
    del hub.tokens["token-199"]
    started = time.monotonic()
    await until(lambda: bool(crowd.ended))
    assert time.monotonic() - started < 5
    assert crowd.ended == {"token-199/bob/": "this token does not log in any more"}


async def test_one_answer_is_about_all_that_it_tells_of(crowd: Crowd, hub: ScriptedHub) -> None:
    hub.add_token("of-bob", "bob", "access:servers!user=alice", "access:servers!user=carol")
    for number in range(100):
        crowd.by_token("of-bob", "alice", f"s{number}")
        crowd.enter(Login("user:root", workspace("alice"), KEY, f"SHA256:{number}"), f"root-{number}")
    crowd.by_token("of-bob", "carol")
    await until(lambda: hub.asked.count(WHOSE) >= 2)
    assert hub.asked.count("GET /hub/api/users/root") <= 3
    assert not crowd.ended
    hub.add_token("of-bob", "bob", "access:servers!user=carol")
    hub.users["root"]["admin"] = False
    await until(lambda: len(crowd.ended) == 200)
    assert "of-bob/carol/" not in crowd.ended
    assert hub.asked.count(WHOSE) <= 5
