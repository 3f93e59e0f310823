"""Has the rules of `mlhub_spawner_worker.firewall` set where the engine runs: by a process of this machine where the
worker is root beside its engine, else by a container with the host's network that lives for a moment."""

import asyncio
import json
import os
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from aiodocker.exceptions import DockerError

from mlhub_shared.errors import MLHubError, Temporary
from mlhub_spawner_worker.backends.base import BackendError
from mlhub_spawner_worker.backends.docker import labels
from mlhub_spawner_worker.backends.docker.configuration import ReachSettings
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.errors import Missing, translated
from mlhub_spawner_worker.backends.docker.own_container import own_container
from mlhub_spawner_worker.firewall import Openings, command

log = structlog.get_logger(__name__)

SCRIPT = "mlhub_spawner_worker.firewall"
DEFAULT_IMAGE = "mlhub-spawner-worker"

_EFFECT = "workspaces can reach the services of their host"

_TIMEOUT = 60
"""Seconds for one run; a busy engine takes a few to start a container."""

_CONFINED = {
    "NetworkMode": "host",
    "CapDrop": ["ALL"],
    # NET_RAW: the older flavour of iptables talks to the kernel over a raw socket.
    "CapAdd": ["NET_ADMIN", "NET_RAW"],
    "SecurityOpt": ["no-new-privileges:true"],
    "ReadonlyRootfs": True,
    # iptables keeps its lock there.
    "Tmpfs": {"/run": "mode=755"},
    "Memory": 256 * 1024 * 1024,
    "PidsLimit": 64,
}


class Firewall:
    """The rules of one deployment on one engine."""

    def __init__(self, engine: Engine, hub: str, settings: ReachSettings, *, engine_url: str) -> None:
        self._engine, self._hub, self._settings = engine, hub, settings
        self._beside = os.geteuid() == 0 and shares_network(engine_url)
        self._lock = asyncio.Lock()
        self._warned = False
        self.caveat = "" if settings.firewall else f"The firewall is off: {_EFFECT}."
        """What people must know of it; empty when the rules are in force."""

    async def apply(self) -> bool:
        """Set the rules, or say once that they can't be; whether they are in force now."""
        if not self._settings.firewall:
            return False
        try:
            said = await self._run("apply")
        except MLHubError as error:
            self._complain(str(error))
            return False
        log.info("docker.firewall_set", hub=self._hub, by=said.strip())
        self.caveat, self._warned = "", False
        return True

    async def remove(self) -> None:
        """Take the rules away, as far as that can be done."""
        if self._settings.firewall and not self.caveat:
            try:
                await self._run("remove")
            except MLHubError as error:
                log.warning("docker.firewall_stays", hub=self._hub, why=str(error))

    def _complain(self, why: str) -> None:
        self.caveat = f"No firewall could be set: {_EFFECT}."
        if not self._warned:
            log.warning("docker.no_firewall", hub=self._hub, why=why, effect=self.caveat)
            self._warned = True

    async def _run(self, action: str) -> str:
        arguments = command(action, self._hub, openings(self._settings))
        async with self._lock:
            try:
                async with asyncio.timeout(_TIMEOUT):
                    return await (self._here(arguments) if self._beside else self._in_container(arguments))
            except TimeoutError as error:
                raise Temporary(f"the firewall took longer than {_TIMEOUT} s") from error

    async def _here(self, arguments: list[str]) -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", SCRIPT, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            said, complaint = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        return _outcome(process.returncode, said.decode(), complaint.decode())

    async def _in_container(self, arguments: list[str]) -> str:
        config: dict[str, Any] = {
            "Image": await self._image(),
            "Entrypoint": ["python", "-m", SCRIPT],
            "Cmd": arguments,
            "User": "0:0",
            "WorkingDir": "/",
            "Labels": {labels.DEPLOYMENT: self._hub, labels.SERVICE: "firewall"},
            "Healthcheck": {"Test": ["NONE"]},
            "HostConfig": _CONFINED,
        }
        with translated("set the firewall"):
            name = f"mlhub-firewall-{self._hub}"
            with suppress(DockerError):
                # Left by a worker that was ended at the wrong moment.
                await self._engine.docker.containers.container(name).delete(force=True)
            container = await self._engine.docker.containers.create(config, name=name)
            try:
                await container.start()
                ended = await container.wait()
                said = "".join(await container.log(stdout=True))
                complaint = "".join(await container.log(stderr=True))
            finally:
                await asyncio.shield(asyncio.ensure_future(container.delete(force=True)))
        return _outcome(ended["StatusCode"], said, complaint)

    async def _image(self) -> str:
        if self._settings.firewall_image:
            return self._settings.firewall_image
        own = await own_container(self._engine)
        if own is None:
            return DEFAULT_IMAGE
        try:
            shown: dict[str, Any] = json.loads(await self._engine.read(f"containers/{own}/json"))
        except Missing:
            return DEFAULT_IMAGE
        return str(shown["Image"])


def openings(settings: ReachSettings) -> Openings:
    """What that kind of reach needs open."""
    closed = settings.closed_to
    match settings.reach:
        case "host":
            return Openings(api_port=settings.api_port, closed=closed)
        case "published":
            proxy = (settings.proxy_address, settings.api_port) if settings.proxy_address else None
            return Openings(entry_from=settings.publish_to, proxy=proxy, closed=closed)
        case _:
            return Openings(closed=closed)


def shares_network(engine_url: str) -> bool:
    """Whether the engine behind that address uses the very network stack of this process."""
    if not engine_url.startswith("unix://"):
        return False
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(engine_url.removeprefix("unix://"))
            peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        process = struct.unpack("3i", peer)[0]
        return Path(f"/proc/{process}/ns/net").stat().st_ino == Path("/proc/self/ns/net").stat().st_ino
    except OSError:
        return False


def _outcome(status: int | None, said: str, complaint: str) -> str:
    if status != 0:
        raise BackendError((complaint or said).strip()[-400:] or f"the firewall's command ended with {status}")
    return said
