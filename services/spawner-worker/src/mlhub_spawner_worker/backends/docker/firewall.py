"""Has the rules of `mlhub_spawner_worker.firewall` set where the engine runs: by a process of this machine where the
worker is root beside its engine, else by a container with the host's network that lives for a moment."""

import asyncio
import os
import socket
import struct
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import structlog

from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.errors import MLHubError, Temporary
from mlhub_spawner_worker.backends.docker.configuration import ReachSettings
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.errand import outcome, run_errand
from mlhub_spawner_worker.firewall import Openings, command

log = structlog.get_logger(__name__)

SCRIPT = "mlhub_spawner_worker.firewall"

EVERY = timedelta(minutes=10)
"""The rules are set anew that often: whoever reloads the host's firewall takes them away."""

_MOST_PATIENCE = 60
"""Seconds, at most, until what could not be set is tried again."""

_TIMEOUT = 60
"""Seconds for one run; a busy engine takes a few to start a container."""

_ON_THE_HOST = {
    "NetworkMode": "host",
    # NET_RAW: the older flavour of iptables talks to the kernel over a raw socket.
    "CapAdd": ["NET_ADMIN", "NET_RAW"],
    # iptables keeps its lock there.
    "Tmpfs": {"/run": "mode=755"},
}


class Firewall:
    """The rules of one deployment on one engine."""

    def __init__(self, engine: Engine, hub: str, settings: ReachSettings, *, engine_url: str) -> None:
        self._engine, self._hub, self._settings = engine, hub, settings
        self._beside = os.geteuid() == 0 and shares_network(engine_url)
        self._lock = asyncio.Lock()
        self._warned = False
        self._due = asyncio.Event()
        self._set_under: str | None = None
        """The engine as it was when the rules were set."""
        self.caveat = "" if settings.firewall else f"The firewall is off: {_effect(settings)}."
        """What people must know of it; empty when the rules are in force."""

    def require(self) -> None:
        """Temporary where ports of workspaces are published, and the rules that close them are not in force yet."""
        settings = self._settings
        # An engine that was started anew may have come back with its host.
        if settings.reach == "published" and settings.firewall and self._set_under != self._engine.boot:
            raise Temporary(f"The firewall of this node is not in force, and without it {_effect(settings)}")

    def renew(self) -> None:
        """Somebody may have taken the rules away: set them at once."""
        self._due.set()

    async def keep(self) -> None:
        """See to it for ever that they are in force."""
        backoff = Backoff(first=1, most=_MOST_PATIENCE)
        while self._settings.firewall:
            if self._set_under is None:
                await backoff.sleep()
            else:
                backoff.reset()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._due.wait(), EVERY.total_seconds())
            self._due.clear()
            await self.apply()

    async def apply(self) -> None:
        """Set the rules, or say once that they can't be."""
        if not self._settings.firewall:
            return
        boot = self._engine.boot
        try:
            said = await self._run("apply")
        except (MLHubError, OSError) as error:
            self._complain(str(error))
            return
        log.info("docker.firewall_set", hub=self._hub, by=said.strip())
        self._set_under, self.caveat, self._warned = boot, "", False

    async def remove(self) -> None:
        """Take the rules away, as far as that can be done."""
        if self._set_under is not None:
            try:
                await self._run("remove")
            except (MLHubError, OSError) as error:
                log.warning("docker.firewall_stays", hub=self._hub, why=str(error))

    def _complain(self, why: str) -> None:
        self._set_under, self.caveat = None, f"No firewall could be set: {_effect(self._settings)}."
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
        return outcome(process.returncode, said.decode(), complaint.decode())

    async def _in_container(self, arguments: list[str]) -> str:
        line, image = ["python", "-m", SCRIPT, *arguments], self._settings.firewall_image
        return await run_errand(self._engine, self._hub, "firewall", line, image=image, host=_ON_THE_HOST)


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


def _effect(settings: ReachSettings) -> str:
    """What comes of there being no firewall."""
    if settings.reach == "published":
        return "whoever reaches this node reaches the ports of its workspaces, and they reach the services of its host"
    return "workspaces can reach the services of their host"
