"""Workspaces as child processes of the worker, which outlive it; no isolation between users."""

from mlhub_spawner_worker.backends.process.backend import ProcessBackend
from mlhub_spawner_worker.backends.process.entry import LocalEntry
from mlhub_spawner_worker.backends.process.plan import ProcessSettings

__all__ = ["LocalEntry", "ProcessBackend", "ProcessSettings"]
