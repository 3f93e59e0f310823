"""Connecting again right after a stop that was asked for."""

import asyncio
import gc
import re
import weakref
from datetime import timedelta

from pydantic import SecretStr

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.workspace import Phase, Reason
from mlhub_shared.runtime.clock import utc_now
from mlhub_shared.tasks import end_tasks
from mlhub_ssh_gateway.access import TOKEN, Login
from mlhub_ssh_gateway.quiet import Quiet
from mlhub_ssh_gateway.sessions import Session, Sessions
from tests.ssh_gateway.place import Place, end, read_until
from tests.support.hub_api import ScriptedHub, refusal
from tests.support.makers import record, workspace
from tests.support.openssh import OpenSsh, Ran
from tests.support.waiting import until


def starts(place: Place, hub: ScriptedHub) -> None:
    """Let the hub start what it is asked to."""
    generation = iter(range(10, 100, 10))

    async def start(user: str, server: str) -> None:
        await place.put(user, server, generation=next(generation))

    hub.on_start = start


async def stay(client: OpenSsh, login: str = "alice") -> asyncio.subprocess.Process:
    """Be in the workspace."""
    process = await client.start(login, "echo on; exec cat")
    assert process.stdout is not None
    await read_until(process.stdout, b"on\n")
    return process


async def stop(place: Place, *, reason: Reason = Reason.ASKED) -> None:
    """Do what the worker does when it is told to stop, or something else ends the workspace."""
    now = utc_now()
    await place.put_and_seen("alice", phase=Phase.STOPPING, generation=2, reason=reason, phase_since=now)
    await place.put_and_seen("alice", phase=Phase.STOPPED, generation=2, reason=reason, phase_since=utc_now())


async def come_back(client: OpenSsh, options: tuple[str, ...] = ()) -> Ran:
    return await client.run("alice", "echo in", options=options)


async def test_who_was_in_does_not_wake_it_and_everybody_else_does(place: Place, hub: ScriptedHub) -> None:
    starts(place, hub)
    alice = await place.client("alice")
    process = await stay(alice)
    await stop(place)
    await end(process)
    ran = await come_back(alice)
    assert (ran.status, ran.stdout) == (255, b"")
    assert "workspace alice was stopped on request while you were in it" in ran.stderr
    left = re.search(r" UTC \((\d+) s from now\)", ran.stderr)
    assert left is not None
    assert 30 < int(left[1]) <= 60
    assert "start it on its page, or connect from elsewhere or with another key" in ran.stderr
    assert not [path for path in hub.asked if path.startswith("POST") and "activity" not in path]
    assert (await come_back(alice, options=("-b", "127.0.0.2"))).stdout == b"in\n"
    await stop(place)


async def test_another_key_wakes_it_at_once_and_then_it_is_open_to_all(place: Place, hub: ScriptedHub) -> None:
    starts(place, hub)
    alice, root = await place.client("alice"), await place.client("root")
    process = await stay(alice)
    await stop(place)
    await end(process)
    assert (await come_back(root)).stdout == b"in\n"
    assert (await come_back(alice)).stdout == b"in\n"
    await place.put("alice", phase=Phase.STOPPED, generation=11, reason=Reason.EXITED)
    assert (await come_back(alice)).stdout == b"in\n"


async def test_one_that_stopped_by_itself_is_woken_by_whoever_was_in(place: Place, hub: ScriptedHub) -> None:
    starts(place, hub)
    alice = await place.client("alice")
    process = await stay(alice)
    await stop(place, reason=Reason.EXPIRED)
    await end(process)
    assert (await come_back(alice)).stdout == b"in\n"


async def test_who_had_left_before_wakes_it(place: Place, hub: ScriptedHub) -> None:
    starts(place, hub)
    alice = await place.client("alice")
    assert (await come_back(alice)).stdout == b"in\n"
    await place.events(EventKind.SESSION_CLOSED)
    await stop(place)
    assert (await come_back(alice)).stdout == b"in\n"


async def test_a_session_that_ended_with_the_stop_counts_however_late_the_news(place: Place, hub: ScriptedHub) -> None:
    starts(place, hub)
    alice = await place.client("alice")
    process, stopped_at = await stay(alice), utc_now()
    await end(process)
    await place.events(EventKind.SESSION_CLOSED)
    await place.put_and_seen("alice", phase=Phase.STOPPED, generation=2, reason=Reason.ASKED, phase_since=stopped_at)
    assert "stopped on request" in (await come_back(alice)).stderr


async def test_the_quiet_has_an_end(place: Place, hub: ScriptedHub) -> None:
    starts(place, hub)
    alice = await place.client("alice")
    process = await stay(alice)
    await stop(place)
    await end(process)
    assert "stopped on request" in (await come_back(alice)).stderr
    place.skipped = place.settings.quiet_after_stop
    assert (await come_back(alice)).stdout == b"in\n"


async def test_a_workspace_that_is_not_to_be_started_by_ssh_says_so(place: Place, hub: ScriptedHub) -> None:
    async def start(user: str, server: str) -> object:
        return refusal(403, "This workspace is not started by SSH. Start it on its page.")

    hub.on_start = start  # type: ignore[assignment]
    await place.put("alice", phase=Phase.STOPPED)
    ran = await come_back(await place.client("alice"))
    assert ran.status == 255
    assert ran.stderr.splitlines()[-1].endswith("This workspace is not started by SSH. Start it on its page.")


async def test_no_token_outlives_its_session_and_yet_it_is_known_again(bus: Bus) -> None:
    def enter(token: str) -> Session:
        login = Login("user:alice", workspace("alice"), TOKEN, token=SecretStr(token))
        return sessions.open(login, "203.0.113.5", lambda sentence: None)

    sessions = Sessions(utc_now, lambda event: None, lambda workspace: None)
    quiet = Quiet(bus.start_table(bus.workspaces), sessions, timedelta(seconds=60), utc_now)
    watching = asyncio.ensure_future(quiet.run())
    login = weakref.ref(enter("one").login)
    stopped = record("alice", phase=Phase.STOPPED, reason=Reason.ASKED, phase_since=utc_now())
    await bus.workspaces.put(stopped.name, stopped)
    await until(lambda: quiet.reason(sessions.all()[0]) is not None)
    sessions.close(sessions.all()[0])
    gc.collect()
    assert login() is None
    assert quiet.reason(enter("one")) is not None
    assert quiet.reason(enter("another")) is None
    await end_tasks(watching)
