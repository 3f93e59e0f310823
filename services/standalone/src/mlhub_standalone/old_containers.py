"""Containers of the first ML Hub: put aside, and what they alone hold is copied into the volumes of today."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from mlhub_standalone import volumes
from mlhub_standalone.engine import Container, Engine, EngineAway, Volume
from mlhub_standalone.old_database import OldHub, OldServer, OldUser
from mlhub_standalone.old_images import HOME

ASIDE = ".before"
"""Ends the name of a container that has been put aside; no workspace's name contains a dot."""


def with_images(old: OldHub, containers: Sequence[Container]) -> OldHub:
    """The same users, whose default workspaces, which nobody chose options for, have the images that they ran.

    Of two containers of one workspace the first one counts.
    """
    images = {(it.user, it.server): it.image for it in reversed(containers) if not it.image.startswith("sha256:")}

    def server(user: OldUser, one: OldServer) -> OldServer:
        image = images.get((user.name, one.name))
        return replace(one, options={**one.options, "image": image}) if image and not one.options.get("image") else one

    users = (replace(user, servers=tuple(server(user, one) for one in user.servers)) for user in old.users)
    return replace(old, users=tuple(users))


class OldContainers:
    """Takes over what they hold, and frees the names that today's containers need."""

    def __init__(self, engine: Engine, hub_name: str, users: Collection[str], image: str) -> None:
        self._engine, self._hub_name, self._users, self._image = engine, hub_name, users, image
        volumes_now = engine.volumes()
        self._labelled = {volume.name for volume in volumes_now}
        self._there = {(volume.user, volume.server) for volume in volumes_now if volume.origin == hub_name}
        self.done: list[str] = []
        self.remarks: list[str] = []

    def take(self, container: Container) -> None:
        """One of them."""
        is_ours = container.origin == self._hub_name
        if is_ours and container.name.endswith(ASIDE):
            return
        about = f"{container.user}: the old container {container.name}"
        if is_ours and container.state == "running":
            self.remarks.append(f"{about} still runs: docker stop {container.name}, and move in again")
            return
        try:
            self._take_files(container, about if is_ours else f"{about} is of the hub {container.origin!r}, and")
            if is_ours:
                self._engine.rename(container, container.name + ASIDE)
                self.done.append(f"{container.user}: container {container.name}, put aside as {container.name}{ASIDE}")
        except EngineAway as error:
            self.remarks.append(f"{about} is in the way of a new one: {error}")

    def _take_files(self, container: Container, about: str) -> None:
        place, name = container.mounted.get(HOME), volumes.name_today(container, self._hub_name)
        if place in self._labelled:
            # What becomes of such volumes is told with the other volumes.
            return
        if container.user not in self._users or name is None:
            self.remarks.append(f"{about} keeps its files: its workspace was not taken over")
        elif (container.user, container.server) in self._there:
            self.remarks.append(f"{about} keeps its files: there is a volume already")
        elif place:
            source = Volume(place, "", container.user, container.server)
            command = volumes.copy_command(source, name, self._hub_name, self._image)
            self.remarks.append(f"{about} has its files in {place}, found here as a copy only:\n      {command}")
        elif container.origin != self._hub_name:
            command = volumes.unpack_command(container, HOME, name, self._hub_name, self._image)
            self.remarks.append(f"{about} has files, found here as a copy only:\n      {command}")
        elif self._engine.copy(container, HOME, Volume(name, self._hub_name, container.user, container.server)):
            self.done.append(f"{container.user}: volume {name}, of the files in {container.name}")
            self._there.add((container.user, container.server))
