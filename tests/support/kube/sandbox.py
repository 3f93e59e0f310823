"""Where the programs of one pod run: its address, its directories, its environment.

All pods share this machine's loopback, with an address in 127/8 each, and its file system: a path that the pod mounts a
claim at is replaced, in arguments and variables, with the claim's directory here. HOME and the working directory are
that of the claim that HOME, or else the first mount, names; without one a directory of the pod's own. An address to
listen on that means "all" (`0.0.0.0`) in JUPYTERHUB_SERVICE_URL becomes the pod's own.
"""

import asyncio
import os
import random
import re
import shutil
import signal
from contextlib import suppress
from pathlib import Path

from tests.support.kube.resources import Obj

MARK = "FAKE_POD_UID"
"""Variable that every program of a pod carries: whoever leaves its session is found by it."""

_HERE = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
_EVERYWHERE = re.compile(r"//(0\.0\.0\.0|\[::\]|)(?=[:/])")
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][-A-Za-z0-9_.]*)\)")


class Addresses:
    """Gives every pod an address of its own, of those that this machine answers for anyway."""

    def __init__(self) -> None:
        self._next = random.randrange(0x020000, 0xF00000)

    def take(self) -> str:
        """One that no pod of this cluster has had."""
        self._next += 1
        while self._next & 0xFF in {0, 255}:
            self._next += 1
        return f"127.{self._next >> 16}.{self._next >> 8 & 0xFF}.{self._next & 0xFF}"


class Sandbox:
    """Of one pod."""

    def __init__(self, pod: Obj, address: str, folder: Path, volumes: Path) -> None:
        self.pod, self.address, self.folder = pod, address, folder
        self.uid: str = pod["metadata"]["uid"]
        self._volumes = volumes
        self._paths: dict[str, str] = {}
        self.home = folder / "home"

    def prefix(self, container: Obj) -> list[str]:
        """What a command of this container begins with, to run in here."""
        return []

    @property
    def home_inside(self) -> str:
        """HOME, as its programs see it."""
        return str(self.home)

    async def open(self) -> None:
        """Have its directories."""
        self.home.mkdir(parents=True, exist_ok=True)
        self._paths = {path: str(self._directory(claim)) for path, claim in self._mounts().items()}
        container = self.pod["spec"]["containers"][0]
        given = {one["name"]: one.get("value", "") for one in container.get("env") or ()}
        home = self._paths.get(given.get("HOME", ""), next(iter(self._paths.values()), None))
        if home is not None:
            self.home = Path(home)

    async def aclose(self) -> None:
        """End whatever still runs in it, and remove what is its own."""
        await self.kill_all()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def kill_all(self) -> None:
        """As a container's end does with all that it has started."""
        await asyncio.to_thread(_kill_marked, f"{MARK}={self.uid}".encode())

    def environment(self, container: Obj, secrets: dict[str, str]) -> dict[str, str]:
        """Of a container's programs. `secrets`: what `valueFrom` finds, by the variable's name."""
        env: dict[str, str] = {}
        for one in container.get("env") or ():
            value = secrets.get(one["name"], "") if "valueFrom" in one else one.get("value") or ""
            env[one["name"]] = self.mapped(expanded(value, env))
        if url := env.get("JUPYTERHUB_SERVICE_URL"):
            env["JUPYTERHUB_SERVICE_URL"] = self.listening(url)
        return {**_HERE, "HOSTNAME": self.pod["metadata"]["name"], **env, "HOME": self.home_inside, MARK: self.uid}

    def listening(self, url: str) -> str:
        """The address to listen on."""
        return _EVERYWHERE.sub(f"//{self.address}", url, count=1)

    def mapped(self, text: str) -> str:
        """With the paths of this machine in place of the pod's."""
        for path, here in self._paths.items():
            text = re.sub(rf"{re.escape(path)}(?=/|$|[\s:;'\"&])", lambda _, here=here: here, text)  # type: ignore[misc]
        return text

    def directory(self, container: Obj) -> Path:
        """Where its programs begin."""
        wanted = Path(self.mapped(container.get("workingDir") or ""))
        return wanted if wanted.is_absolute() and wanted.is_dir() else self.home

    async def connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """To what listens on the pod's loopback: here, on its address or on the one that all share."""
        try:
            return await asyncio.open_connection(self.address, port)
        except ConnectionRefusedError:
            return await asyncio.open_connection("127.0.0.1", port)

    def _mounts(self) -> dict[str, str]:
        """Names of claims by mount path, the longest path first."""
        spec = self.pod["spec"]
        names = {
            volume["name"]: volume["persistentVolumeClaim"]["claimName"]
            for volume in spec.get("volumes") or ()
            if "persistentVolumeClaim" in volume
        }
        mounts = spec["containers"][0].get("volumeMounts") or ()
        found = {
            one["mountPath"].rstrip("/"): "/".join(filter(None, (names[one["name"]], one.get("subPath"))))
            for one in mounts
            if one["name"] in names
        }
        return dict(sorted(found.items(), key=lambda item: -len(item[0])))

    def _directory(self, claim: str) -> Path:
        path = self._volumes / claim
        path.mkdir(parents=True, exist_ok=True)
        return path


def expanded(text: str, env: dict[str, str]) -> str:
    """With `$(NAME)` replaced, as Kubernetes does."""
    return _REFERENCE.sub(lambda m: "$" if m[0] == "$$" else env.get(m[1], m[0]), text)


def _kill_marked(mark: bytes) -> None:
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
