"""Where the first ML Hub kept files: which volumes are used as they are, and the commands that copy the rest."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_standalone.engine import Container, Volume


@dataclass(frozen=True)
class Found:
    """What is done about each."""

    used: list[Volume] = field(default_factory=list)
    """Are found by their labels, whatever their names."""
    to_copy: list[tuple[Volume, str]] = field(default_factory=list)
    """Those of a hub of another name, with the name that they would have today."""
    strange: list[Volume] = field(default_factory=list)
    """Of nobody who is here."""


def sort(volumes: Iterable[Volume], users: Iterable[str], hub_name: str) -> Found:
    """Sort them; `users`: who is here; `hub_name`: of this hub."""
    found, known = Found(), set(users)
    for volume in volumes:
        name = name_today(volume, hub_name)
        if volume.user not in known or name is None:
            found.strange.append(volume)
        elif volume.origin == hub_name:
            found.used.append(volume)
        else:
            found.to_copy.append((volume, name))
    return found


def name_today(of: Volume | Container, hub_name: str) -> str | None:
    """The name of the volume that a workspace has here; None if there can be no such workspace."""
    try:
        return WorkspaceId(hub=hub_name, user=of.user, server=of.server).name
    except ValidationError:
        return None


def copy_command(volume: Volume, name: str, hub_name: str, image: str) -> str:
    """What a person types to have a copy of a volume, or of a folder, as the volume that a workspace has here."""
    mounts = ["-v", f"{volume.name}:/from:ro", "-v", f"{name}:/to"]
    copy = ["docker", "run", "--rm", "-u", "0", *mounts, "--entrypoint", "cp", image, "-a", "/from/.", "/to/"]
    return f"{_make(volume, name, hub_name)} && {shlex.join(copy)}"


def unpack_command(container: Container, path: str, name: str, hub_name: str, image: str) -> str:
    """What a person types to have what a container alone holds in the volume that its workspace has here."""
    read = ["docker", "cp", f"{container.name}:{path}", "-"]
    tar = ["--entrypoint", "tar", image, "-xp", "-C", str(Path(path).parent), "-f", "-"]
    write = ["docker", "run", "--rm", "-i", "-u", "0", "-v", f"{name}:{path}", *tar]
    return f"{_make(container, name, hub_name)} && {shlex.join(read)} | {shlex.join(write)}"


def _make(of: Volume | Container, name: str, hub_name: str) -> str:
    labels = {"origin": hub_name, "user": of.user, "server_name": of.server}
    given = [word for label, value in labels.items() for word in ("--label", f"mlhub.{label}={value}")]
    # Quoted: a label may hold anything, and this is about to be pasted into a shell.
    return shlex.join(["docker", "volume", "create", *given, name])
