"""What the worker keeps of each workspace on disk, beside what the engine keeps.

<data_dir>/lock              held by the one worker that may use the directory
<data_dir>/records/<name>    the record as it was last remembered; there from the first start until it is erased
"""

import fcntl
import os
from pathlib import Path

import structlog
from pydantic import ValidationError

from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.errors import Permanent

log = structlog.get_logger(__name__)

_FRESH = ".new"
"""Ends the name of a file that is being written; no workspace's name contains a dot."""


class Shelf:
    """Records on disk; blocking, so call it from a thread."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._records = self._root / "records"
        self._lock: int | None = None

    def open(self) -> None:
        """Take the directory for this worker; Permanent if another one has it."""
        self._records.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root.chmod(0o700)
        lock = os.open(self._root / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise Permanent(f"another worker uses {self._root}") from error
        self._lock = lock

    def close(self) -> None:
        """Let another worker have the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def all(self) -> list[WorkspaceRecord]:
        """Every record that can be read."""
        names = sorted(name for name in os.listdir(self._records) if not name.endswith(_FRESH))
        return [record for name in names if (record := self.read(name)) is not None and record.name == name]

    def read(self, name: str) -> WorkspaceRecord | None:
        """The record of a workspace; None where there is nothing readable."""
        try:
            return WorkspaceRecord.model_validate_json(self._file(name).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log.warning("record.unreadable", workspace=name, error=type(error).__name__)
            return None

    def has(self, name: str) -> bool:
        """Whether there is a record, readable or not."""
        return self._file(name).exists()

    def write(self, record: WorkspaceRecord) -> None:
        """Keep that, whole or not at all, and over a power cut."""
        file = self._file(record.name)
        fresh = file.with_name(file.name + _FRESH)
        with fresh.open("wb") as opened:
            os.fchmod(opened.fileno(), 0o600)
            opened.write(record.model_dump_json(exclude_defaults=True).encode())
            opened.flush()
            os.fsync(opened.fileno())
        fresh.replace(file)

    def remove(self, name: str) -> None:
        """Keep nothing of it."""
        self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        if not name or "/" in name or "." in name:
            raise Permanent(f"{name!r} is no name of a workspace")
        return self._records / name
