"""`mlhub status`: what runs where, and whether it works, asked anew each time."""

import asyncio
import json
from dataclasses import asdict
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from mlhub_standalone import leftovers, state_file
from mlhub_standalone.console import plural, say
from mlhub_standalone.data_dir import DataDir, read_json
from mlhub_standalone.engine import Container
from mlhub_standalone.lock import InstanceLock
from mlhub_standalone.readiness import ask
from mlhub_standalone.state_file import Part
from mlhub_standalone.table import duration, render


class Code(IntEnum):
    """Exit code of `mlhub status`."""

    WELL = 0
    UNWELL = 1
    """It runs, but not every part works."""
    DOWN = 3


def status(data: DataDir, *, as_json: bool) -> Code:
    """Show how this instance is."""
    holder = InstanceLock(data).holder()
    parts = state_file.read(data) if holder else []
    problems = asyncio.run(_ask_all(parts))
    code = _code(parts, problems)
    if as_json:
        say(json.dumps(_report(data, holder.pid if holder else None, parts, problems), indent=2))
    elif not holder:
        say(_down(data))
    else:
        say(f"ML Hub runs on {data.root} (launcher: pid {holder.pid}).\n")
        say(render(("SERVICE", "ADDRESS", "STATE", "FOR", "PID", "RESTARTS", "LOG"), _rows(parts, problems)))
        for part in parts:
            if problem := problems[part.name]:
                say(f"\n  {part.name}: {problem}")
        if found := leftovers.containers(data):
            say("\n" + render(("WORKSPACE", "USER", "IMAGE", "STATUS"), [_container_row(it) for it in found]))
    return code


async def _ask_all(parts: list[Part]) -> dict[str, str | None]:
    answers = await asyncio.gather(*(asyncio.to_thread(_problem, part) for part in parts))
    return {part.name: answer for part, answer in zip(parts, answers, strict=True)}


def _problem(part: Part) -> str | None:
    if part.pid is None:
        return "its process has ended"
    return next((problem for check in part.checks if (problem := ask(check)) is not None), None)


def _code(parts: list[Part], problems: dict[str, str | None]) -> Code:
    if not parts:
        return Code.DOWN
    return Code.UNWELL if any(problems.values()) else Code.WELL


def _rows(parts: list[Part], problems: dict[str, str | None]) -> list[tuple[str, ...]]:
    now = datetime.now(UTC)
    return [
        (
            part.name,
            part.address,
            _word(part, problems),
            duration((now - part.started).total_seconds()),
            str(part.pid or "-"),
            str(part.restarts),
            part.log,
        )
        for part in parts
    ]


def _word(part: Part, problems: dict[str, str | None]) -> str:
    if part.state != "running":
        return part.state
    return "not ready" if problems[part.name] else "ready"


def _container_row(container: Container) -> tuple[str, ...]:
    return (container.name, container.user, container.image, container.status)


def _down(data: DataDir) -> str:
    if not data.exists():
        return f"There is no ML Hub in {data.root}. Start one: mlhub up --data-dir {data.root}"
    text = f"ML Hub does not run on {data.root}. Start it: mlhub up --data-dir {data.root}"
    if left := leftovers.parts(data):
        text += (
            f"\n{plural(len(left), 'process')} of an earlier run are left; end them: mlhub down --data-dir {data.root}"
        )
    if running := leftovers.workspaces(data):
        text += f"\n{plural(len(running), 'process')} of kept workspaces run."
    if containers := leftovers.containers(data):
        text += (
            f"\n{plural(len(containers), 'container')} of kept workspaces {'runs' if len(containers) == 1 else 'run'}."
        )
    return text


def _report(data: DataDir, launcher: int | None, parts: list[Part], problems: dict[str, str | None]) -> dict[str, Any]:
    return {
        "data_dir": str(data.root),
        "launcher": launcher,
        "instance": read_json(data.instance),
        "parts": [
            {
                "name": part.name,
                "address": part.address,
                "state": _word(part, problems),
                "problem": problems[part.name],
                "pid": part.pid,
                "restarts": part.restarts,
                "since": part.since,
                "log": part.log,
            }
            for part in parts
        ],
        "containers": [asdict(container) for container in leftovers.containers(data)],
    }
