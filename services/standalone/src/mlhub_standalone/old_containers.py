"""Containers of the first ML Hub: put aside, and what they alone hold is copied into the volumes of today."""

from collections.abc import Collection
from dataclasses import replace

from pydantic import ValidationError

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_standalone.engine import Container, Engine, EngineAway, Volume
from mlhub_standalone.old_database import OldHub, OldServer, OldUser
from mlhub_standalone.old_images import HOME

ASIDE = ".before"
"""Ends the name of a container that has been put aside; no workspace's name contains a dot."""


def with_images(old: OldHub, containers: Collection[Container]) -> OldHub:
    """The same users, whose default workspaces, which nobody chose options for, have the images that they ran."""
    images = {(it.user, it.server): it.image for it in containers if not it.image.startswith("sha256:")}

    def server(user: OldUser, one: OldServer) -> OldServer:
        image = images.get((user.name, one.name))
        return replace(one, options={**one.options, "image": image}) if image and not one.options.get("image") else one

    users = (replace(user, servers=tuple(server(user, one) for one in user.servers)) for user in old.users)
    return replace(old, users=tuple(users))


def put_aside(
    engine: Engine, hub_name: str, containers: Collection[Container], users: Collection[str]
) -> tuple[list[str], list[str]]:
    """Free the names of today's containers; returns what was done, and what was not."""
    done: list[str] = []
    remarks: list[str] = []
    there = {(volume.user, volume.server) for volume in engine.volumes() if volume.origin == hub_name}
    for container in containers:
        if container.name.endswith(ASIDE):
            continue
        about = f"{container.user}: the old container {container.name}"
        if container.state == "running":
            remarks.append(f"{about} still runs: docker stop {container.name}, and move in again")
            continue
        has_volume = (container.user, container.server) in there
        try:
            if HOME not in container.mounted and container.user in users:
                if has_volume:
                    remarks.append(f"{about} has files that are not copied: there is a volume already")
                else:
                    done += _save(engine, hub_name, container)
            engine.rename(container, container.name + ASIDE)
            done.append(f"{container.user}: container {container.name}, put aside as {container.name}{ASIDE}")
        except EngineAway as error:
            remarks.append(f"{about} is in the way of a new one: {error}")
    return done, remarks


def _save(engine: Engine, hub_name: str, container: Container) -> list[str]:
    """Copy what it has where workspaces keep their files."""
    try:
        name = WorkspaceId(hub=hub_name, user=container.user, server=container.server).name
    except ValidationError:
        return []
    is_copied = engine.copy(container, HOME, Volume(name, hub_name, container.user, container.server))
    return [f"{container.user}: volume {name}, of the files in {container.name}"] if is_copied else []
