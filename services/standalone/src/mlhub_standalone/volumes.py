"""Named volumes of the first ML Hub: which are used as they are, and which need a copy with other labels."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import ValidationError

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_standalone.engine import Volume


@dataclass(frozen=True)
class Found:
    """What is done about each."""

    used: list[Volume] = field(default_factory=list)
    """Are found by their labels, whatever their names."""
    to_copy: list[tuple[Volume, str]] = field(default_factory=list)
    """Those of a hub of another name, with the name that they would have today."""
    strange: list[Volume] = field(default_factory=list)
    """Of nobody who is known."""


def sort(volumes: Iterable[Volume], users: Iterable[str], hub_name: str) -> Found:
    """Sort them; `hub_name`: of this hub."""
    found, known = Found(), set(users)
    for volume in volumes:
        name = _name_today(volume, hub_name)
        if volume.user not in known or name is None:
            found.strange.append(volume)
        elif volume.origin == hub_name:
            found.used.append(volume)
        else:
            found.to_copy.append((volume, name))
    return found


def copy_command(volume: Volume, name: str, hub_name: str, image: str) -> str:
    """What a person types to have a copy of a volume under the name, and with the labels, that it needs here."""
    labels = {"origin": hub_name, "user": volume.user, "server_name": volume.server}
    given = [word for label, value in labels.items() for word in ("--label", f"mlhub.{label}={value}")]
    mounts = ["-v", f"{volume.name}:/from:ro", "-v", f"{name}:/to"]
    make = ["docker", "volume", "create", *given, name]
    copy = ["docker", "run", "--rm", "-u", "0", *mounts, "--entrypoint", "cp", image, "-a", "/from/.", "/to/"]
    # Quoted: a label may hold anything, and this is about to be pasted into a shell.
    return f"{shlex.join(make)} && {shlex.join(copy)}"


def _name_today(volume: Volume, hub_name: str) -> str | None:
    try:
        return WorkspaceId(hub=hub_name, user=volume.user, server=volume.server).name
    except ValidationError:
        return None
