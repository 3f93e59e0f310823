"""How the gateway is put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from mlhub_shared.bus import Table
from mlhub_shared.runtime.service import Runtime
from mlhub_ssh_gateway.access import Doorkeeper
from mlhub_ssh_gateway.activity import ActivityReports
from mlhub_ssh_gateway.connection import Desk
from mlhub_ssh_gateway.hub_api import HubApi
from mlhub_ssh_gateway.journal import Journal
from mlhub_ssh_gateway.keys import load_or_make
from mlhub_ssh_gateway.listener import Listener
from mlhub_ssh_gateway.resolver import Resolver
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
    journal = Journal(bus)
    activity = ActivityReports(api, runtime.clock, settings.activity_interval, lambda: sessions.moved())
    sessions = Sessions(runtime.clock, journal.write, activity.note)
    doors = Doors(
        starter=Starter(records, api, enabled=settings.start_on_connect, timeout=settings.start_timeout),
        resolver=Resolver(bus, records, leases),
        dialler=Dialler(client_key),
        patience=settings.reach_timeout,
    )
    desk = Desk(Doorkeeper(settings.hub_name, keys, records, api), doors, sessions)
    tables: dict[str, Table[Any]] = {"workspaces": records, "ssh-keys": keys, "workers": leases}
    for name, table in tables.items():
        _require_live(runtime, name, table)
    try:
        async with Listener(settings, host_key, desk) as listener:
            runtime.keep_running("journal", journal.run)
            runtime.keep_running("activity", activity.run)
            runtime.keep_running("listener", partial(_accept, listener, list(tables.values())))
            yield
    finally:
        await journal.flush()
        await api.close()


async def _accept(listener: Listener, tables: list[Table[Any]]) -> None:
    # Who comes earlier waits in the socket's backlog: a table that is still empty would refuse everybody.
    for table in tables:
        await table.synced()
    await listener.run()


def _require_live(runtime: Runtime, name: str, table: Table[Any]) -> None:
    runtime.health.require(name, lambda: None if table.is_live else f"the bucket {name} is not followed")
