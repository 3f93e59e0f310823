"""What a worker finds when it opens an engine: workspaces of an earlier one, with or without its records."""

import asyncio
from datetime import UTC, datetime

import structlog

from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_spawner_worker.backends.base import BackendError
from mlhub_spawner_worker.backends.docker import labels
from mlhub_spawner_worker.backends.docker.containers import Containers, Shown
from mlhub_spawner_worker.backends.docker.lives import Life, Lives
from mlhub_spawner_worker.backends.docker.shelf import Shelf
from mlhub_spawner_worker.backends.docker.volumes import Volumes

log = structlog.get_logger(__name__)

_AT_ONCE = 16
"""Containers looked at side by side."""


async def adopt(hub: str, containers: Containers, volumes: Volumes, lives: Lives, shelf: Shelf) -> None:
    """Follow every container of this hub, and have a record of each and of each volume, from its labels if need be."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def look(listed: Shown) -> Shown | None:
        async with room:
            return await containers.find(listed.id)

    found = await asyncio.gather(*(look(listed) for listed in await containers.list()))
    there = [shown for shown in found if shown is not None and is_ours(shown, shown.name, hub)]
    for shown in there:
        life = lives.begin(life_of(shown))
        if not shown.runs:
            lives.settle_soon(life)
        record = labels.record_of(shown.labels, hub, made=shown.made, runs=shown.runs)
        await _keep_if_lost(shelf, record)
    for carried in (await volumes.of_workspaces()).values():
        await _keep_if_lost(shelf, labels.record_of(carried, hub, made=datetime.now(UTC), runs=False))
    log.info("docker.adopted", running=sum(shown.runs for shown in there))


def life_of(shown: Shown) -> Life:
    """The life of a container that runs, or has run."""
    carried = shown.labels
    return Life(
        name=shown.name,
        user=carried.get(labels.USER, ""),
        container=shown.id,
        running=shown.running,
        port=labels.number(carried, labels.PORT),
        home=carried.get(labels.HOME) or None,
    )


def is_ours(shown: Shown, name: str, hub: str) -> bool:
    """Whether it is the container of this hub's workspace of that name."""
    # The first ML Hub's containers carry no generation, and may hold the only copy of somebody's files.
    workspace = labels.workspace_of(shown.labels, hub)
    return workspace is not None and workspace.name == name and labels.GENERATION in shown.labels


def refuse_stranger(shown: Shown, name: str, hub: str) -> None:
    """BackendError if it is any other one, which holds the name."""
    if is_ours(shown, name, hub):
        return
    if shown.labels.get(labels.ORIGIN) == hub and labels.GENERATION not in shown.labels:
        raise BackendError(
            f"The container {name} on this node is of the first ML Hub, and its files are not taken over yet; an "
            "administrator must stop it and run `mlhub move-in`."
        )
    raise BackendError(
        f"There is a container {name} on this node that this hub has not made; an administrator must remove or rename "
        "it."
    )


async def _keep_if_lost(shelf: Shelf, record: WorkspaceRecord | None) -> None:
    if record is not None and await asyncio.to_thread(shelf.read, record.name) is None:
        log.warning("docker.record_rebuilt", workspace=record.name)
        await asyncio.to_thread(shelf.write, record)
