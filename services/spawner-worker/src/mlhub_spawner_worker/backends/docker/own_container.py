"""Which container the worker itself runs in, if any."""

import json
import re
import socket
from collections.abc import Iterable
from pathlib import Path

from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.errors import Missing

_MOUNTED = re.compile(r"/containers/([0-9a-f]{64})/(?:hostname|hosts|resolv\.conf) /etc/")
"""The engine puts these three files of a container into it; in every version of control groups."""

_GROUP = re.compile(r"[/-]([0-9a-f]{64})(?:\.scope)?$", re.MULTILINE)
_SHORT_ID = re.compile(r"[0-9a-f]{12}")


async def own_container(engine: Engine) -> str | None:
    """The id of the worker's container; None if it runs in none of this engine's."""
    for candidate in own_candidates():
        try:
            return str(json.loads(await engine.read(f"containers/{candidate}/json"))["Id"])
        except Missing:
            continue
    return None


def own_candidates(process: Path = Path("/proc/self"), host_name: str | None = None) -> list[str]:
    """What may be the id of the container of a process, the surest first; the engine must know it as well."""
    name = socket.gethostname() if host_name is None else host_name
    texts = (_MOUNTED.findall(_read(process / "mountinfo")), _GROUP.findall(_read(process / "cgroup")))
    return _once([*texts[0], *texts[1], *([name] if _SHORT_ID.fullmatch(name) else [])])


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _once(ids: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(ids))
