"""One launcher per data directory."""

import fcntl
import json
import os
import signal
from contextlib import suppress
from dataclasses import asdict

from mlhub_standalone.data_dir import DataDir, read_json
from mlhub_standalone.errors import AlreadyRunning
from mlhub_standalone.processes import Identity

END = signal.SIGINT
"""Asks a launcher to end as Ctrl-C does, whatever SIGTERM means where it runs."""

KEEP_WORKSPACES = signal.SIGUSR1
"""Asks a launcher to end and to leave the workspaces running, whatever it was started with."""


class InstanceLock:
    """Held while a launcher lives: the kernel lets go of it however the launcher ends."""

    def __init__(self, data: DataDir) -> None:
        self._data = data
        self._file: int | None = None

    def acquire(self) -> None:
        """Take it; AlreadyRunning if another launcher has it."""
        file = os.open(self._data.lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            holder = self.holder()
            raise AlreadyRunning(holder.pid if holder else None, str(self._data.root)) from None
        self._file = file
        identity = Identity.of(os.getpid())
        os.ftruncate(file, 0)
        os.write(file, json.dumps(asdict(identity) if identity else {}).encode())

    def release(self) -> None:
        """Let go of it."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None

    def holder(self) -> Identity | None:
        """The launcher that has it; None if none does."""
        content = read_json(self._data.lock)
        with suppress(KeyError, TypeError):
            identity = Identity(int(content["pid"]), int(content["started"]), str(content["boot"]))
            return identity if identity.is_alive else None
        return None
