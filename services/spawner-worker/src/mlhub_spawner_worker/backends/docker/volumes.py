"""The workspaces' volumes: found by their labels, never by their names.

A volume that is kept after its workspace has been deleted can't be told so by its labels, which never change. An empty
volume beside it says it, the marker: its labels name the kept one, and until when. So the engine itself knows, and no
workspace of the same name ever gets the old data.
"""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from aiodocker.volumes import DockerVolume

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.runtime.clock import Clock, utc_now
from mlhub_spawner_worker.backends.base import BackendError
from mlhub_spawner_worker.backends.docker import labels
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.errors import Missing, Taken, translated

log = structlog.get_logger(__name__)

_MARKER = ".kept"
"""Ends the name of a marker."""

_NAMES = 1000
"""Volumes of one workspace's name that may be kept at the same time."""


class Volumes:
    """The volumes of one deployment on one engine."""

    def __init__(self, engine: Engine, hub: str, *, keep: timedelta, clock: Clock = utc_now) -> None:
        self._engine, self._hub, self._keep, self._clock = engine, hub, keep, clock

    async def ensure(
        self, workspace: WorkspaceId, *, base_url: str, before_making: Callable[[], Awaitable[None]]
    ) -> str:
        """The name of the workspace's volume; where there is none, `before_making` may object by an error."""
        listed = await self._list(**labels.of_workspace(workspace))
        # Other engines than Docker's take a label without a value for one of any value.
        shown = [one for one in listed if labels.workspace_of(labels_of(one), self._hub) == workspace]
        mine = _in_use(shown)
        if mine:
            return min(mine)
        await before_making()
        kept = {labels_of(one).get(labels.KEPT) for one in shown}
        for number in range(_NAMES):
            name = workspace.name if number == 0 else f"{workspace.name}.{number}"
            if name not in kept:
                await self._make(name, labels.of_volume(workspace, base_url=base_url))
                return name
        raise BackendError(f"There are too many kept volumes of {workspace.name}.")

    async def of_workspaces(self) -> dict[str, dict[str, str]]:
        """The labels of every volume that a workspace has, by the volume's name."""
        return _in_use(await self._list())

    async def kept(self) -> dict[str, datetime]:
        """Until when each volume is kept whose workspace has been deleted."""
        markers = (labels_of(one) for one in await self._list())
        return {
            marker[labels.KEPT]: labels.moment(marker.get(labels.KEPT_UNTIL, "")).replace(tzinfo=UTC)
            for marker in markers
            if labels.KEPT in marker
        }

    async def erase(self, name: str) -> None:
        """Remove the volume of the workspace of this name, or keep it for as long as the policy says."""
        for volume, carried in (await self.of_workspaces()).items():
            workspace = labels.workspace_of(carried, self._hub)
            if workspace is None or workspace.name != name:
                continue
            if self._keep > timedelta(0):
                await self._mark(volume, workspace, self._clock() + self._keep)
            elif not await self._remove(volume):
                # Somebody else's container has it. The workspace is gone all the same, and a new one gets another.
                await self._mark(volume, workspace, self._clock())

    async def sweep(self) -> None:
        """Remove every kept volume whose time is over; one that is in use stays for the next time."""
        here = {str(one["Name"]) for one in await self._list()}
        for volume, until in (await self.kept()).items():
            if until > self._clock():
                continue
            if volume not in here or await self._remove(volume):
                await self._remove(volume + _MARKER)
                log.info("docker.kept_volume_removed", volume=volume)

    async def _make(self, name: str, carried: dict[str, str]) -> None:
        with translated(f"make the volume {name}"):
            made = await self._engine.docker.volumes.create({"Name": name, "Labels": carried})
            # The engine answers with the old one, labels and all, if there is one.
            shown = labels_of(await made.show())
        if any(shown.get(key) != value for key, value in carried.items() if key != labels.BASE_URL):
            raise BackendError(f"There is a volume {name} that this hub has not made; an administrator must rename it.")

    async def _mark(self, volume: str, workspace: WorkspaceId, until: datetime) -> None:
        carried = labels.of_workspace(workspace) | {labels.KEPT: volume, labels.KEPT_UNTIL: _text(until)}
        with translated(f"keep the volume {volume}"):
            await self._engine.docker.volumes.create({"Name": volume + _MARKER, "Labels": carried})
        log.info("docker.volume_kept", volume=volume, until=carried[labels.KEPT_UNTIL])

    async def _remove(self, name: str) -> bool:
        """Whether it is gone."""
        try:
            with translated(f"remove the volume {name}"):
                await DockerVolume(self._engine.docker, name).delete()
        except Missing:
            return True
        except Taken as error:
            log.warning("docker.volume_in_use", volume=name, why=str(error))
            return False
        return True

    async def _list(self, **wanted: str) -> list[dict[str, Any]]:
        carried = wanted or {labels.ORIGIN: self._hub}
        answer = json.loads(await self._engine.read("volumes", filters=labels.filters(**carried)))
        return [one for one in answer.get("Volumes") or [] if labels_of(one).get(labels.ORIGIN) == self._hub]


def labels_of(shown: dict[str, Any]) -> dict[str, str]:
    """The labels of a volume as the engine lists it."""
    return dict(shown.get("Labels") or {})


def _in_use(shown: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    found = {str(one["Name"]): labels_of(one) for one in shown}
    kept = {carried[labels.KEPT] for carried in found.values() if labels.KEPT in carried}
    return {name: carried for name, carried in found.items() if labels.KEPT not in carried and name not in kept}


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
