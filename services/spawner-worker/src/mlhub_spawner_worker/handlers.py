"""From the bus to one call each."""

import asyncio

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.commands import decode_command
from mlhub_shared.contracts.queries import (
    DESCRIBE_WORKSPACE,
    DRAIN_NODE,
    EXTEND_WORKSPACE,
    LIST_PORTS,
    LIST_RESOURCES,
    OPEN_PORT,
    RESOLVE_TARGET,
    DescribeWorkspace,
    DrainNode,
    ExtendWorkspace,
    ListPorts,
    ListResources,
    OpenPort,
    ResolveTarget,
)
from mlhub_shared.contracts.subjects import command_durable
from mlhub_spawner_worker.lifecycle import Place
from mlhub_spawner_worker.queries import Queries
from mlhub_spawner_worker.workspaces import Workspaces

_AT_ONCE = 16
"""Commands handled side by side: each is a few round trips to the bus, and little work."""


def consume_commands(bus: Bus, workspaces: Workspaces, place: Place) -> list[asyncio.Task[None]]:
    """Pull the commands of the pool and of this node, also with a full house: a stop may be among them."""
    return [
        bus.consume(
            stream=bus.subjects.commands,
            durable=command_durable(place.pool, node),
            filters=[bus.subjects.commands_of(place.pool, node)],
            decode=decode_command,
            handler=workspaces.handle,
            on_dead=workspaces.give_up,
            parallel=_AT_ONCE,
        )
        for node in (None, place.node)
    ]


async def answer_queries(bus: Bus, queries: Queries, place: Place) -> None:
    """Answer what any worker can, and what only this one can."""
    await bus.answer(RESOLVE_TARGET, ResolveTarget, queries.resolve)
    await bus.answer(DESCRIBE_WORKSPACE, DescribeWorkspace, queries.describe, node=place.node)
    await bus.answer(LIST_RESOURCES, ListResources, queries.list, node=place.node)
    await bus.answer(DRAIN_NODE, DrainNode, queries.drain, node=place.node)
    await bus.answer(EXTEND_WORKSPACE, ExtendWorkspace, queries.extend, node=place.node)
    await bus.answer(LIST_PORTS, ListPorts, queries.ports, node=place.node)
    await bus.answer(OPEN_PORT, OpenPort, queries.open_port, node=place.node)
