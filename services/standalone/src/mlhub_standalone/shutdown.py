"""Ending everything in order: who asks for workspaces, the workspaces, who runs them, the bus."""

import asyncio
from collections.abc import Collection, Iterable

from mlhub_shared.bus import BusSettings
from mlhub_standalone.component import NATS
from mlhub_standalone.console import say
from mlhub_standalone.credentials import NATS_USER, nats_password
from mlhub_standalone.instance import Instance
from mlhub_standalone.ports import LOOPBACK
from mlhub_standalone.supervisor import State, Supervised
from mlhub_standalone.workspace_stop import stop_all

PART_WITHIN = 15.0
"""Seconds a part gets to end after SIGTERM."""

_FRONT = {"ssh-gateway", "cleanup", "hub"}
"""Ended first, so that nobody asks for a workspace any more while the others stop."""


async def end_in_order(
    instance: Instance, parts: Collection[Supervised], *, keep_workspaces: bool, workspaces_within: float
) -> None:
    """End every part by its own means, the workspaces before those who run them."""
    await _stop(part for part in parts if part.name in _FRONT)
    if not keep_workspaces and _running(parts) >= {NATS, "spawner-worker"}:
        await stop_all(bus_settings(instance), within=workspaces_within, say=say)
    await _stop(part for part in parts if part.name != NATS)
    await _stop(parts)


def bus_settings(instance: Instance) -> BusSettings:
    """How the launcher itself gets on the bus."""
    return BusSettings(
        url=f"nats://{LOOPBACK}:{instance.internal[NATS]}",
        hub=instance.hub_name,
        service="standalone",
        user=NATS_USER,
        password=nats_password(instance.data),
    )


def _running(parts: Iterable[Supervised]) -> set[str]:
    return {part.name for part in parts if part.state is State.RUNNING}


async def _stop(parts: Iterable[Supervised]) -> None:
    await asyncio.gather(*(part.stop(PART_WITHIN) for part in parts))
