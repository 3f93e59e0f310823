"""How the gateway is put together."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from mlhub_shared.bus import Table
from mlhub_shared.bus.outbox import Outbox
from mlhub_shared.contracts.queries import END_SESSION, EndSession
from mlhub_shared.runtime.service import Runtime
from mlhub_ssh_gateway.access import Doorkeeper
from mlhub_ssh_gateway.activity import ActivityReports
from mlhub_ssh_gateway.admission import Pace
from mlhub_ssh_gateway.connection import Desk
from mlhub_ssh_gateway.destinations import parse_pattern
from mlhub_ssh_gateway.ending import Endings
from mlhub_ssh_gateway.hub_api import HubApi
from mlhub_ssh_gateway.keys import load_or_make
from mlhub_ssh_gateway.listener import Listener
from mlhub_ssh_gateway.lockout import Lockout
from mlhub_ssh_gateway.metrics import UNSENT
from mlhub_ssh_gateway.neighbours import Neighbours
from mlhub_ssh_gateway.own_keys import OwnKeys
from mlhub_ssh_gateway.quiet import Quiet
from mlhub_ssh_gateway.refusals import Refusals
from mlhub_ssh_gateway.resolver import Resolver
from mlhub_ssh_gateway.roster import Roster
from mlhub_ssh_gateway.sessions import Sessions
from mlhub_ssh_gateway.settings import SshGatewaySettings
from mlhub_ssh_gateway.starting import Starter
from mlhub_ssh_gateway.upstream import Dialler, Doors


@asynccontextmanager
async def build(runtime: Runtime, settings: SshGatewaySettings) -> AsyncIterator[None]:
    """Listen for SSH until left; open sessions end with it."""
    host_key, client_key = load_or_make(settings.host_key_file), load_or_make(settings.client_key_file)
    bus = runtime.bus
    records, keys, leases = (bus.start_table(bucket) for bucket in (bus.workspaces, bus.ssh_keys, bus.workers))
    api = HubApi.open(settings.hub_api_url, settings.hub_api_token, settings.hub_timeout)
    outbox, own_keys = Outbox(bus, UNSENT.inc), OwnKeys(records)
    activity = ActivityReports(api, runtime.clock, settings.activity_interval, lambda: sessions.moved())
    sessions = Sessions(runtime.clock, outbox.write, activity.note)
    roster = Roster(bus, sessions, settings.replica)
    quiet = Quiet(records, sessions, settings.quiet_after_stop, runtime.clock)
    doors = Doors(
        starter=Starter(records, api, enabled=settings.start_on_connect, timeout=settings.start_timeout),
        resolver=Resolver(bus, records, leases),
        dialler=Dialler(client_key),
        quiet=quiet,
        patience=settings.reach_timeout,
    )
    desk = Desk(
        doorkeeper=Doorkeeper(settings.hub_name, keys, records, api, own_keys),
        doors=doors,
        sessions=sessions,
        neighbours=Neighbours(records, own_keys),
        refusals=Refusals(outbox.write),
        lockout=Lockout(settings.max_failures),
        pace=Pace(settings.logins_per_second),
        max_connections=settings.max_connections,
        outward=[parse_pattern(text) for text in settings.forward_outward],
    )
    endings = Endings(sessions, desk.doorkeeper, keys, settings.replica)
    await bus.answer(END_SESSION, EndSession, endings.answer, node=settings.replica)
    tables: dict[str, Table[Any]] = {"workspaces": records, "ssh-keys": keys, "workers": leases}
    for name, table in tables.items():
        _require_live(runtime, name, table)
    try:
        async with Listener(settings, host_key, desk) as listener:
            works: dict[str, Callable[[], Awaitable[None]]] = {
                "outbox": outbox.run,
                "activity": activity.run,
                "refusals": desk.refusals.run,
                "roster": roster.run,
                "quiet": quiet.run,
                "own-keys": own_keys.run,
                "keys": endings.follow_keys,
                "access": endings.ask_again,
                "listener": partial(_accept, listener, list(tables.values())),
            }
            for name, work in works.items():
                runtime.keep_running(name, work)
            yield
    finally:
        desk.refusals.flush()
        await asyncio.gather(outbox.flush(), roster.flush())
        await api.close()


async def _accept(listener: Listener, tables: list[Table[Any]]) -> None:
    # Who comes earlier waits in the socket's backlog: a table that is still empty would refuse everybody.
    for table in tables:
        await table.synced()
    await listener.run()


def _require_live(runtime: Runtime, name: str, table: Table[Any]) -> None:
    runtime.health.require(name, lambda: None if table.is_live else f"the bucket {name} is not followed")
