"""Containers of workspaces: made, started, looked at, ended."""

import asyncio
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import aiohttp

from mlhub_shared.contracts.workspace import Endpoint
from mlhub_spawner_worker.backends.base import BackendError, Running
from mlhub_spawner_worker.backends.docker import labels
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.errors import EngineAway, Missing, Taken, translated

TAIL_BYTES = 4000
"""Of a log that a record carries."""

_TAIL_LINES = "100"
_HEADER = 8
"""Bytes before each piece of a log: the stream it came from, and its length."""

_NOWHERE = "192.0.2.1"
"""An address that nobody has (RFC 5737): of a container that was dead before anybody could look."""

_SLACK = 30
"""Seconds that an engine takes to end a container, beyond the grace it gives."""


@dataclass(frozen=True)
class Shown:
    """A container as the engine describes it."""

    id: str
    name: str
    labels: Mapping[str, str]
    runs: bool
    made: datetime
    exit_code: int | None = None
    out_of_memory: bool = False
    has_mem_limit: bool = False
    image_id: str = ""
    endpoint: Endpoint | None = None

    @property
    def running(self) -> Running:
        """What it runs as."""
        port = labels.number(self.labels, labels.PORT) or 1
        endpoint = self.endpoint or Endpoint(host=_NOWHERE, port=port)
        generation = labels.number(self.labels, labels.GENERATION) or 1
        return Running(generation, endpoint, self.labels.get(labels.BOOT, ""), self.image_id)

    def runs_since(self, generation: int) -> bool:
        """It runs, and was started for a newer generation."""
        return self.runs and self.running.generation > generation


class Containers:
    """The workspaces' containers of one deployment."""

    def __init__(self, engine: Engine, hub: str) -> None:
        self._engine, self._hub = engine, hub

    async def list(self, *, user: str | None = None) -> list[Shown]:
        """All of this deployment's workspaces, or one user's, running or not; without their addresses."""
        carried = {labels.ORIGIN: self._hub} if user is None else labels.of_user(self._hub, user)
        wanted = labels.filters(**carried)
        listed = json.loads(await self._engine.read("containers/json", all="true", filters=wanted))
        return [_listed(one) for one in listed]

    async def find(self, container: str) -> Shown | None:
        """The container of this name or id; None if there is none."""
        try:
            return _shown(json.loads(await self._engine.read(f"containers/{container}/json")))
        except Missing:
            return None

    async def create(self, name: str, body: dict[str, Any]) -> str:
        """Make it and return its id; Taken if the name is taken."""
        with translated(f"make the container {name}"):
            made = await self._engine.docker.containers.create(body, name=name)
        return str(made.id)

    async def start(self, container: str) -> None:
        """Start it."""
        with translated("start the container"):
            await self._engine.docker.containers.container(container).start()

    async def end(self, container: str, *, grace: timedelta) -> None:
        """Stop it with the signal its image asks for, or after `grace` with SIGKILL; at once if there is no grace."""
        handle = self._engine.docker.containers.container(container)
        seconds = math.ceil(grace.total_seconds())
        try:
            async with asyncio.timeout(seconds + _SLACK):
                # Taken: it does not run any more.
                with suppress(Missing, Taken), translated("end the container"):
                    if seconds == 0:
                        await handle.kill(signal="SIGKILL")
                    else:
                        await handle.stop(t=seconds, timeout=aiohttp.ClientTimeout(sock_connect=5))
        except TimeoutError:
            raise EngineAway("the Docker engine can't end the container") from None

    async def remove(self, container: str) -> None:
        """Remove it, and what its image keeps in nameless volumes, but no volume that has a name."""
        with suppress(Missing), translated("remove the container"):
            await self._engine.docker.containers.container(container).delete(force=True, v=True)

    async def tail(self, container: str) -> str:
        """The last lines of its log; empty where it can't be read."""
        wanted = {"stdout": "true", "stderr": "true", "tail": _TAIL_LINES}
        try:
            pieces = await self._engine.read(f"containers/{container}/logs", **wanted)
        except BackendError:
            return ""
        return _text(pieces)

    async def usage(self, container: str) -> tuple[float | None, int | None]:
        """Seconds of CPU since its start, and bytes of memory without what can be dropped at once."""
        wanted = {"stream": "false", "one-shot": "true"}
        try:
            stats = json.loads(await self._engine.read(f"containers/{container}/stats", **wanted))
        except BackendError:
            return None, None
        memory = stats.get("memory_stats") or {}
        used, detail = memory.get("usage"), memory.get("stats") or {}
        cached = detail.get("total_inactive_file", detail.get("inactive_file", 0))
        cpu = ((stats.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage")
        return None if cpu is None else cpu / 1e9, None if used is None else max(int(used) - int(cached), 0)


def _listed(one: dict[str, Any]) -> Shown:
    return Shown(
        id=str(one["Id"]),
        name=str((one.get("Names") or ["/"])[0]).removeprefix("/"),
        labels=one.get("Labels") or {},
        runs=one.get("State") in ("running", "paused"),
        made=labels.instant(one.get("Created")),
        image_id=str(one.get("ImageID", "")),
    )


def _shown(one: dict[str, Any]) -> Shown:
    state, carried = one["State"], one["Config"].get("Labels") or {}
    return Shown(
        id=str(one["Id"]),
        name=str(one["Name"]).removeprefix("/"),
        labels=carried,
        runs=bool(state["Running"]),
        made=labels.moment(str(one.get("Created", ""))),
        exit_code=state.get("ExitCode"),
        out_of_memory=bool(state.get("OOMKilled")),
        has_mem_limit=bool(one.get("HostConfig", {}).get("Memory")),
        image_id=str(one.get("Image", "")),
        endpoint=_endpoint(one["NetworkSettings"], labels.number(carried, labels.PORT)),
    )


def _endpoint(settings: dict[str, Any], port: int) -> Endpoint | None:
    """The port of the node where it is published, else its own address."""
    for binding in (settings.get("Ports") or {}).get(f"{port}/tcp") or []:
        return Endpoint(host=binding["HostIp"], port=int(binding["HostPort"]))
    addresses = [one.get("IPAddress") for one in (settings.get("Networks") or {}).values()]
    return next((Endpoint(host=address, port=port) for address in addresses if address), None)


def _text(pieces: bytes) -> str:
    said, at = bytearray(), 0
    while at + _HEADER <= len(pieces):
        length = int.from_bytes(pieces[at + 4 : at + _HEADER])
        said += pieces[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
    cut = said[-TAIL_BYTES:]
    if len(said) > TAIL_BYTES:
        cut = cut.partition(b"\n")[2] or cut
    return cut.decode(errors="replace")
