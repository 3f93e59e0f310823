"""Everything that carries a deployment's labels on an engine."""

import asyncio
import json
from typing import Any

from mlhub_shared.contracts.queries import Resource
from mlhub_spawner_worker.backends.docker import labels
from mlhub_spawner_worker.backends.docker.engine import Engine


async def resources(engine: Engine, hub: str) -> list[Resource]:
    """Containers, volumes and networks of workspaces; kept volumes and their markers belong to none any more."""
    wanted = labels.filters(**{labels.ORIGIN: hub})
    containers, volumes, networks = await asyncio.gather(
        engine.read("containers/json", all="true", filters=wanted),
        engine.read("volumes", filters=wanted),
        engine.read("networks", filters=wanted),
    )
    made = json.loads(volumes).get("Volumes") or []
    kept = {_labels(one).get(labels.KEPT) for one in made} - {None}
    return [
        *(_resource("container", one["Names"][0].removeprefix("/"), one, hub) for one in json.loads(containers)),
        *(
            _resource("volume", one["Name"], one, hub)
            for one in made
            if one["Name"] not in kept and labels.KEPT not in _labels(one)
        ),
        *(Resource(kind="network", name=one["Name"]) for one in json.loads(networks)),
    ]


def _resource(kind: str, name: str, one: dict[str, Any], hub: str) -> Resource:
    return Resource(kind=kind, name=name, workspace=labels.workspace_of(_labels(one), hub))


def _labels(one: dict[str, Any]) -> dict[str, str]:
    return one.get("Labels") or {}
