"""Where one instance keeps what: every path below its data directory."""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlhub_standalone.errors import LauncherError

MARK = "MLHUB_STANDALONE_DIR"
"""In the environment of every part: tells which instance a process belongs to, also after its launcher has died."""


_LONGEST_SOCKET = 97
"""Bytes of a socket's path that HAProxy takes, ten less than the kernel: a folder deep down leaves no room for it."""


@dataclass(frozen=True)
class DataDir:
    """The folder of one instance; nobody but its owner may look into it."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held by the launcher that runs this instance; says which."""
        return self.root / "lock"

    @property
    def instance(self) -> Path:
        """Name and ports, kept from start to start."""
        return self.root / "instance.json"

    @property
    def state(self) -> Path:
        """What runs now, by process."""
        return self.root / "state.json"

    @property
    def nats(self) -> Path:
        """JetStream's store."""
        return self.root / "nats"

    @property
    def nats_config(self) -> Path:
        """The server's configuration, its password included."""
        return self.secrets("nats") / "nats.conf"

    @property
    def profiles(self) -> Path:
        """Profiles of workspaces, read where no other file of them is set."""
        return self.root / "profiles.yaml"

    @property
    def moved_in(self) -> Path:
        """What was taken over from another deployment, and when."""
        return self.root / "moved-in.json"

    @property
    def certificate(self) -> Path:
        """What the proxy shows to browsers, whoever signed it."""
        return self.of("proxy") / "haproxy" / "tls.pem"

    @property
    def ssh_socket(self) -> Path:
        """Where the proxy hands on what comes to the web's port by SSH."""
        own = self.of("ssh-gateway") / "proxied.sock"
        if len(os.fsencode(own)) <= _LONGEST_SOCKET:
            return own
        mark = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"mlhub-{os.getuid()}-{mark}" / own.name

    def of(self, service: str) -> Path:
        """What a service keeps."""
        return self.root / service

    def log(self, service: str) -> Path:
        """The log of a service since the last start; the one before has `.1` added."""
        return self.root / "logs" / f"{service}.log"

    def secrets(self, service: str) -> Path:
        """The secrets that one service may read, a file each."""
        return self.root / "secrets" / service

    def create(self) -> None:
        """Make the folder, or close it to others."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root.chmod(0o700)
        for folder in ("logs", "secrets"):
            make_private(self.root / folder).chmod(0o700)

    def exists(self) -> bool:
        """An instance has run here before."""
        return self.instance.is_file()


def make_private(folder: Path) -> Path:
    """Make a folder that only its owner enters."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def make_socket_folder(data: DataDir) -> None:
    """Make the folder of the socket; LauncherError where it is not in our hands alone."""
    folder = make_private(data.ssh_socket.parent)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise LauncherError(f"{folder} is not this account's alone: remove it, or take a shorter --data-dir")


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole; only its owner may read it."""
    make_private(path.parent)
    draft = path.with_name(path.name + ".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """An object kept in a file; empty when there is none, or none that can be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
