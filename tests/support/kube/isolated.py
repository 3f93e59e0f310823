"""Pods with a network and a file system of their own, where the tests run as root on Linux.

Each has a loopback and an address of its own, which this machine reaches; claims are mounted where the pod says, where
that does not hide what the tests need. Programs share the machine's processes all the same.
"""

import asyncio
import ctypes
import os
import random
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

from tests.support.kube.resources import Obj
from tests.support.kube.sandbox import Sandbox

_NETWORK_NAMESPACE = 0x40000000
_TOOLS = ("unshare", "nsenter", "ip", "mount")
_NEEDED = (Path(sys.prefix), Path(sys.base_prefix), Path(__file__).resolve().parents[3], Path("/usr"), Path("/etc"))


def isolation_missing() -> str:
    """What keeps pods from being isolated; empty: nothing."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing or sys.platform != "linux":
        return ", ".join(missing) or "Linux"
    if os.geteuid() != 0:
        return "root"
    tried = subprocess.run(["unshare", "--net", "--mount", "--", "ip", "link", "set", "lo", "up"], capture_output=True)
    return "the right to make namespaces" if tried.returncode else ""


class Isolated(Sandbox):
    """Of one pod."""

    def __init__(self, pod: Obj, address: str, folder: Path, volumes: Path) -> None:
        super().__init__(pod, address, folder, volumes)
        self._holder: asyncio.subprocess.Process | None = None
        self._mounted: dict[str, str] = {}

    async def open(self) -> None:
        await super().open()
        commands = ["ip link set lo up"]
        tops: set[str] = set()
        for path, here in list(self._paths.items()):
            if (ancestor := _ancestor(Path(path))) is None:
                continue
            self._mounted[path] = self._paths.pop(path)
            covered = shlex.quote(str(ancestor))
            if covered not in tops:
                tops.add(covered)
                commands.append(f"mount -t tmpfs tmpfs {covered}")
            commands.append(f"mkdir -p {shlex.quote(path)} && mount --bind {shlex.quote(here)} {shlex.quote(path)}")
        script = " && ".join(["set -e", *commands, "echo there", "exec sleep infinity"])
        self._holder = await asyncio.create_subprocess_exec(
            *("unshare", "--net", "--mount", "--", "sh", "-c", script), stdout=asyncio.subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert await asyncio.wait_for(self._holder.stdout.readline(), 20) == b"there\n"
        await self._wire()

    async def aclose(self) -> None:
        await super().aclose()
        if self._holder is not None and self._holder.returncode is None:
            self._holder.kill()
            await self._holder.wait()

    @property
    def home_inside(self) -> str:
        for path, here in self._mounted.items():
            if Path(here) == self.home:
                return path
        return str(self.home)

    def prefix(self, container: Obj) -> list[str]:
        wanted = self.mapped(container.get("workingDir") or "")
        inside = wanted if wanted in self._mounted or Path(wanted).is_dir() else self.home_inside
        return [*self._inside, "env", "-C", inside or self.home_inside]

    def listening(self, url: str) -> str:
        return url

    async def connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        connection = await asyncio.to_thread(self._socket)
        try:
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        except OSError:
            connection.close()
            raise
        return await asyncio.open_connection(sock=connection)

    @property
    def _inside(self) -> list[str]:
        assert self._holder is not None
        return ["nsenter", f"--target={self._holder.pid}", "--net", "--mount", "--"]

    async def _wire(self) -> None:
        """Give it an address that this machine reaches."""
        assert self._holder is not None
        taken = await _output("ip", "-4", "-o", "addr")
        free = (one for one in iter(_some_network, "") if f" {one}." not in taken)
        network = next(free)
        here, self.address = f"{network}.1", f"{network}.2"
        device = f"fk{self.uid.replace('-', '')[:10]}"
        peer = ("peer", "name", "eth0", "netns", str(self._holder.pid))
        await _output("ip", "link", "add", device, "type", "veth", *peer)
        await _output("ip", "addr", "add", f"{here}/30", "dev", device)
        await _output("ip", "link", "set", device, "up")
        script = f"ip addr add {self.address}/30 dev eth0 && ip link set eth0 up && ip route add default via {here}"
        await _output(*self._inside, "sh", "-c", script)

    def _socket(self) -> socket.socket:
        """One of the pod's network; a thread that has entered it is of no more use, so it is one of its own."""
        assert self._holder is not None
        made: list[socket.socket] = []
        thread = threading.Thread(target=_make_socket, args=(self._holder.pid, made))
        thread.start()
        thread.join()
        return made[0]


def _make_socket(pid: int, made: list[socket.socket]) -> None:
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(namespace, _NETWORK_NAMESPACE) == 0:
            connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            connection.setblocking(False)
            made.append(connection)
    finally:
        os.close(namespace)


def _ancestor(path: Path) -> Path | None:
    """What has to be covered for a directory to be mounted there; None: better nothing."""
    covered = next(one for one in (path, *path.parents) if one.is_dir())
    if covered == Path("/") or any(needed.is_relative_to(covered) for needed in _NEEDED):
        return None
    return covered


def _some_network() -> str:
    """Of the addresses that are set aside for benchmarks."""
    return f"198.{random.choice((18, 19))}.{random.randrange(256)}"


async def _output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, (command, errors.decode())
    return out.decode()
