"""Moving in from the first ML Hub: its users, passwords, admins and workspaces, from its folder of data.

Nothing of it is written to. What is here already stays as it is, so that it may be done again.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from mlhub_shared.contracts.arrivals import Arrivals, Receptions
from mlhub_standalone import credentials, old_database, old_images, volumes
from mlhub_standalone.backends import policy_of_images
from mlhub_standalone.component import PRIVATE
from mlhub_standalone.console import plural, say
from mlhub_standalone.data_dir import make_private, write_private
from mlhub_standalone.engine import Container
from mlhub_standalone.environment import environment_of
from mlhub_standalone.errors import LauncherError
from mlhub_standalone.instance import Instance
from mlhub_standalone.old_containers import OldContainers, with_images
from mlhub_standalone.old_database import OldHub
from mlhub_standalone.translation import images, translate

_WITHIN = 300
"""Seconds that the hub may need to take everybody in."""


@dataclass(frozen=True)
class Report:
    """What was taken over and what was not, line by line."""

    lines: list[str]
    remarks: list[str]


def at_first_start(instance: Instance, person: Mapping[str, str]) -> None:
    """Take over the database of the first ML Hub if it lies in our data directory, once."""
    file = old_database.find(instance.data.root)
    if file is None or instance.data.moved_in.is_file():
        return
    say(f"Moving in from {file} ...")
    try:
        show(move_in(instance, file, person))
    except LauncherError as error:
        raise LauncherError(f"{error}\n  to start without its users, move {file} away") from None


def move_in(instance: Instance, place: Path, person: Mapping[str, str]) -> Report:
    """Take over what is in a folder of data, or a file; LauncherError if there is nothing to take."""
    file = old_database.find(place)
    if file is None:
        raise LauncherError(f"there is no {old_database.FILE} in {place}")
    old, left = old_database.read(file), _containers(instance)
    old = with_images(old, left)
    translation = translate(old, _profiles(instance, old, person))
    receptions = _receive(instance, translation.arrivals, person)
    lines = [f"{it.name}: {', '.join(it.taken)}" for it in receptions.receptions if it.taken]
    remarks = [f"{it.name}: {remark}" for it in receptions.receptions for remark in it.remarks]
    remarks += translation.remarks
    here = {it.name for it in receptions.receptions if it.taken or it.kept}
    more_lines, more_remarks = _things(instance, here, left)
    lines += more_lines
    remarks += more_remarks
    report = Report(lines, remarks)
    _note(instance, file, report)
    return report


def show(report: Report) -> None:
    """Tell what was taken over and what was not."""
    for line in report.lines:
        say(f"  + {line}")
    for remark in report.remarks:
        say(f"  ! {remark}")
    say(f"Moved in: {plural(len(report.lines), 'entry')}, {plural(len(report.remarks), 'remark')}.")


def _profiles(instance: Instance, old: OldHub, person: Mapping[str, str]) -> dict[str, str]:
    """Names of profiles by image, those that the old workspaces need among them."""
    if not instance.runs_containers:
        return {}
    policy, file = policy_of_images(instance.data.profiles), instance.data.profiles
    known = {profile.image: profile.name for profile in reversed(policy.profiles)}
    missing = [image for image in images(old) if image not in known]
    if missing and not file.exists() and not person.get("MLHUB_PROFILES_FILE"):
        port = person.get("DEFAULT_WORKSPACE_PORT", "")
        old_images.write(file, policy.profiles, missing, port=int(port) if port.isdecimal() else old_images.PORT)
        say(f"  {file} has a profile for each image of the old workspaces; change it as you like.")
        return old_images.by_image(file)
    return known


def _receive(instance: Instance, arrivals: Arrivals, person: Mapping[str, str]) -> Receptions:
    """Have the hub take them in: its database is its own."""
    make_private(instance.data.of("hub"))
    environment = environment_of("hub", instance, credentials.make(instance.data), person)
    try:
        run = subprocess.run(
            [sys.executable, "-m", "mlhub_hub.arrivals"],
            input=arrivals.model_dump_json(),
            capture_output=True,
            env=environment,
            text=True,
            timeout=_WITHIN,
            umask=PRIVATE,
            check=False,
        )
        if run.returncode:
            raise LauncherError(f"the hub did not take them in:\n{run.stderr.strip()}")
        return Receptions.model_validate_json(run.stdout)
    except subprocess.TimeoutExpired:
        raise LauncherError(f"the hub did not take them in within {_WITHIN} s") from None
    except ValidationError as error:
        raise LauncherError(f"the hub's answer makes no sense: {error}") from None


def _containers(instance: Instance) -> list[Container]:
    """What the first ML Hub left; that of a hub of our name comes first."""
    left = instance.engine.left_behind() if instance.runs_containers else []
    return sorted(left, key=lambda container: container.origin != instance.hub_name)


def _things(instance: Instance, users: set[str], left: list[Container]) -> tuple[list[str], list[str]]:
    """What an engine has of them."""
    if not instance.runs_containers:
        return [], ["workspaces run as processes here: they begin with empty folders, and volumes stay as they are"]
    image = policy_of_images(instance.data.profiles).profiles[0].image
    lines, remarks = _volumes(instance, users, image)
    containers = OldContainers(instance.engine, instance.hub_name, users, image)
    for container in left:
        containers.take(container)
    return lines + containers.done, remarks + containers.remarks


def _volumes(instance: Instance, users: set[str], image: str) -> tuple[list[str], list[str]]:
    found = volumes.sort(instance.engine.volumes(), users, instance.hub_name)
    lines = [f"{volume.user}: volume {volume.name}" for volume in found.used]
    remarks = [
        f"{volume.user}: the volume {volume.name} is of the hub {volume.origin!r}, and is found here as a copy only:\n"
        f"      {volumes.copy_command(volume, name, instance.hub_name, image)}"
        for volume, name in found.to_copy
    ]
    remarks += [f"the volume {volume.name} is of {volume.user!r}, who was not taken over" for volume in found.strange]
    return lines, remarks


def _note(instance: Instance, file: Path, report: Report) -> None:
    content = {
        "from": str(file),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "taken": report.lines,
        "remarks": report.remarks,
    }
    write_private(instance.data.moved_in, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
