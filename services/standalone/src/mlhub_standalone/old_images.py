"""Profiles for the images of the first ML Hub, so that its workspaces start as they did."""

import re
from collections.abc import Iterable
from itertools import chain, count
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mlhub_shared.contracts.policy import Profile
from mlhub_shared.runtime.profiles import read_profiles
from mlhub_standalone.data_dir import write_private
from mlhub_standalone.errors import LauncherError

HOME, PORT = "/workspace", 8080
"""Where those images keep what is kept, and where they listen."""

_CAPABILITIES = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID",
    "SYS_CHROOT",
)  # fmt: skip
"""Their programs run as root and as others, an SSH server among them."""

_HEAD = "# Made when the workspaces of the first ML Hub moved in; yours to change, and never written again.\n"


def write(file: Path, first: Iterable[Profile], images: Iterable[str], *, port: int = PORT) -> None:
    """Write a file of profiles: those there are, and one for each image."""
    profiles = [profile.model_dump(mode="json", exclude_defaults=True) for profile in first]
    for image in images:
        profiles += _of_image(image, port, {profile["name"] for profile in profiles})
    write_private(file, _HEAD + yaml.safe_dump({"profiles": profiles}, sort_keys=False, width=120))


def by_image(file: Path) -> dict[str, str]:
    """Names of the profiles of a file, by the image that they run."""
    try:
        profiles, _ = read_profiles(file)
    except ValueError as error:
        raise LauncherError(str(error)) from None
    return {profile.image: profile.name for profile in reversed(profiles)}


def _of_image(image: str, port: int, taken: set[str]) -> list[dict[str, Any]]:
    """One profile; none for what is no image's name.

    That hub could start only what is made of ml-workspace, whatever it is called.
    """
    last = image.rpartition("/")[2]
    name = re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-")[:50] or "image"
    described = {
        "name": next(free for free in chain([name], (f"{name}-{number}" for number in count(2))) if free not in taken),
        "display_name": last[:64],
        "description": "From the first ML Hub.",
        "image": image,
        "port": port,
        "home": HOME,
        "default_shm": "256M",
        "capabilities": list(_CAPABILITIES),
        "privilege_escalation": True,
        "start_timeout": 600,
        "own_tools": True,
        "own_ssh": True,
    }
    try:
        Profile.model_validate(described)
    except ValidationError:
        return []
    return [described]
