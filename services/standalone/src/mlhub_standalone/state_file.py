"""What runs now, kept in a file: `mlhub status` reads it, and the next start ends what an earlier one left behind."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from mlhub_standalone.component import Check
from mlhub_standalone.data_dir import DataDir, read_json, write_private
from mlhub_standalone.processes import Identity
from mlhub_standalone.supervisor import Supervised


@dataclass(frozen=True)
class Part:
    """One component as its launcher last saw it."""

    name: str
    address: str
    log: str
    state: str
    since: str
    restarts: int
    process: Identity | None
    checks: tuple[Check, ...]

    @property
    def pid(self) -> int | None:
        """Of the process, if it still runs."""
        return self.process.pid if self.process and self.process.is_alive else None

    @property
    def started(self) -> datetime:
        """When it came into this state."""
        return datetime.fromisoformat(self.since)


def write(data: DataDir, parts: Iterable[Supervised]) -> None:
    """Keep what runs now."""
    content = {
        "parts": [
            {
                "name": part.name,
                "address": part.component.address,
                "log": str(part.log.path),
                "state": str(part.state),
                "since": part.since.isoformat(timespec="seconds"),
                "restarts": part.restarts,
                "process": asdict(part.identity) if part.identity else None,
                "checks": [asdict(check) for check in part.component.checks],
            }
            for part in parts
        ]
    }
    write_private(data.state, json.dumps(content, indent=2) + "\n")


def read(data: DataDir) -> list[Part]:
    """What ran when a launcher last wrote it; empty when there is nothing to read."""
    parts = []
    for content in read_json(data.state).get("parts", []):
        # A file of another version is no reason not to start.
        with suppress(KeyError, TypeError):
            parts.append(_part(content))
    return parts


def _part(content: dict[str, Any]) -> Part:
    process = content["process"]
    return Part(
        name=content["name"],
        address=content["address"],
        log=content["log"],
        state=content["state"],
        since=content["since"],
        restarts=content["restarts"],
        process=Identity(**process) if process else None,
        checks=tuple(Check(**check) for check in content["checks"]),
    )
