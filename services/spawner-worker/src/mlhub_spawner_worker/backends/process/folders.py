"""The worker's directory on disk: one folder for each workspace, and what must survive a kill -9 at any moment.

<data_dir>/lock                     held by the one worker that may use the directory
<data_dir>/instance                 random id, in the environment of everything that this directory's workspaces start
<data_dir>/workspaces/<name>/home   the workspace's own: its home directory
<data_dir>/workspaces/<name>/log.txt
<data_dir>/workspaces/<name>/state.json
<data_dir>/trash/                   what is being deleted
"""

import contextlib
import fcntl
import os
import shutil
import stat
import uuid
from collections.abc import Callable
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.errors import Permanent

log = structlog.get_logger(__name__)


class ProcessState(BaseModel):
    """Which process runs a workspace."""

    model_config = ConfigDict(frozen=True)

    pid: int
    start: int
    boot: str
    port: int
    generation: int


class State(BaseModel):
    """What is kept beside a workspace. No secret."""

    model_config = ConfigDict(frozen=True)

    record: WorkspaceRecord
    process: ProcessState | None = None


class Folders:
    """Paths and files below one data directory; blocking, so call it from a thread."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.workspaces, self.trash = self.root / "workspaces", self.root / "trash"
        self._lock: int | None = None

    def open(self) -> str:
        """Take the directory for this worker and return its instance id; Permanent if another worker has it."""
        for folder in (self.root, self.workspaces, self.trash):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)
        lock = os.open(self.root / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise Permanent(f"another worker uses {self.root}") from error
        self._lock = lock
        for left in self.trash.iterdir():
            _remove(left)
        return self._instance()

    def close(self) -> None:
        """Let another worker have the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def of(self, name: str) -> Path:
        """The folder of a workspace, there or not."""
        if not name or "/" in name or name.startswith("."):
            raise Permanent(f"{name!r} is no name of a workspace")
        return self.workspaces / name

    def home(self, name: str) -> Path:
        """The home directory of a workspace."""
        return self.of(name) / "home"

    def log(self, name: str) -> Path:
        """The log file of a workspace."""
        return self.of(name) / "log.txt"

    def make(self, name: str) -> None:
        """Make a workspace's folder and home."""
        for folder in (self.of(name), self.home(name)):
            folder.mkdir(mode=0o700, exist_ok=True)

    def names(self) -> list[str]:
        """Every workspace that has a folder."""
        return sorted(entry.name for entry in os.scandir(self.workspaces) if entry.is_dir(follow_symlinks=False))

    def read(self, name: str) -> State | None:
        """What is kept beside a workspace; None where there is nothing readable."""
        try:
            return State.model_validate_json((self.of(name) / "state.json").read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log.warning("state.unreadable", workspace=name, error=type(error).__name__)
            return None

    def write(self, name: str, state: State) -> None:
        """Keep that beside a workspace, whole or not at all, and over a power cut."""
        folder = self.of(name)
        fresh = folder / "state.json.new"
        with fresh.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(state.model_dump_json(exclude_defaults=True).encode())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(folder / "state.json")
        _sync_folder(folder)

    def erase(self, name: str) -> None:
        """Remove a workspace's folder: out of the way in one step, then bit by bit."""
        doomed = self.trash / f"{name}.{uuid.uuid4().hex}"
        try:
            self.of(name).rename(doomed)
        except FileNotFoundError:
            return
        _remove(doomed)

    def _instance(self) -> str:
        path = self.root / "instance"
        with contextlib.suppress(FileNotFoundError):
            if known := path.read_text().strip():
                return known
        fresh = path.with_suffix(".new")
        fresh.write_text(uuid.uuid4().hex)
        fresh.replace(path)
        return path.read_text()


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(path: Path) -> None:
    """Remove a tree without following a link out of it, also where its owner took his own rights away."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    shutil.rmtree(path, onerror=_with_rights)
    if path.exists():
        shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        log.error("trash.left", path=str(path))


def _with_rights(function: Callable[..., object], path: str, _: object) -> None:
    # A directory that its owner has closed: open it and its parent, then remove what is inside.
    for folder in (os.path.dirname(path), path):
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(os.lstat(folder).st_mode):
                os.chmod(folder, 0o700)
    with contextlib.suppress(OSError):
        if function in (os.open, os.scandir, os.lstat):
            shutil.rmtree(path, ignore_errors=True)
        else:
            function(path)
